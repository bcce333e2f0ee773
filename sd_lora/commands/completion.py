"""What a shell completes: verbs, options, settings and names of presets, as a script that asks no program for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any

import typer

from sd_lora.errors import ConfigError, nearest


@dataclass(frozen=True)
class Words:
    """What can follow a verb, whose `help` is one sentence: its options with their help, those of them that take a
    value, and settings as ``section.key=``."""

    help: str
    options: Mapping[str, str]
    valued: Sequence[str]
    settings: Sequence[str]


def completion(shell: Annotated[str, typer.Argument(metavar="bash|zsh|fish", help="The shell.")]) -> None:
    """Print the script that completes sd-lora's verbs, options and settings in a shell.

    For bash: source <(sd-lora completion bash), also in ~/.bashrc; for zsh the same in ~/.zshrc, after compinit; for
    fish: sd-lora completion fish > ~/.config/fish/completions/sd-lora.fish
    """
    scripts = {"bash": _bash, "zsh": _zsh, "fish": _fish}
    if shell not in scripts:
        raise ConfigError(f'there is no completion for "{shell}"; {nearest(shell, scripts)}')
    typer.echo(scripts[shell](_verbs(), _values()), nl=False)


def _verbs() -> dict[str, Words]:
    """All verbs, read from the command line itself."""
    from sd_lora.commands.app import app

    commands: Any = typer.main.get_command(app)
    return {name: _words(command) for name, command in commands.commands.items()}


def _words(command: Any) -> Words:
    options: dict[str, str] = {}
    valued, settings = list[str](), list[str]()
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            settings += _settings(parameter.metavar or "")
            continue
        names = [name for name in parameter.opts if name.startswith("--")]
        options |= dict.fromkeys(names, (parameter.help or "").partition(". ")[0].rstrip("."))
        valued += [] if parameter.is_flag else names
    nested = dict.fromkeys(getattr(command, "commands", {}), "")
    return Words((command.help or "").partition(". ")[0].partition(".\n")[0].rstrip("."), options, valued,
                 [*settings, *nested])  # fmt: skip


def _settings(metavar: str) -> list[str]:
    """The settings that an argument of that name takes."""
    from sd_lora.config.schema import SECTIONS

    section, dot, _ = metavar.partition(".key")
    chosen = SECTIONS if section == "section" else {section: SECTIONS[section]} if section in SECTIONS else {}
    return [f"{name}.{item.name}=" for name, kind in chosen.items() for item in fields(kind)] if dot else []


def _values() -> dict[str, list[str]]:
    """Option → what it can be given, where that is a list."""
    from sd_lora.config.presets import preset_names
    from sd_lora.tinybase.world import HELD_OUT_STYLES

    return {"--preset": preset_names(), "--style": [*HELD_OUT_STYLES]}


def _bash(verbs: Mapping[str, Words], values: Mapping[str, Sequence[str]]) -> str:
    valued = sorted({option for words in verbs.values() for option in words.valued} - values.keys())
    lines = ["# completion of sd-lora", "_sd_lora() {", "  local current=${COMP_WORDS[COMP_CWORD]} words=",
             "  local before=${COMP_WORDS[COMP_CWORD-1]}", "  COMPREPLY=()", "  case $before in"]  # fmt: skip
    lines += [f'    {option}) words="{" ".join(names)}" ;;' for option, names in values.items()]
    lines += [f"    =|{'|'.join(valued)}) return ;;", "    *) case ${COMP_WORDS[1]} in"]
    lines += [f'      {verb}) words="{" ".join([*w.options, *w.settings])}" ;;' for verb, w in verbs.items()]
    lines += ["    esac ;;", "  esac", f'  [ "$COMP_CWORD" -eq 1 ] && words="{" ".join(verbs)}"']
    lines += ['  COMPREPLY=($(compgen -W "$words" -- "$current"))',
              '  case ${COMPREPLY[0]} in *=) type compopt >/dev/null 2>&1 && compopt -o nospace ;; esac',
              "}", "complete -o default -F _sd_lora sd-lora"]  # fmt: skip
    return "\n".join(lines) + "\n"


def _zsh(verbs: Mapping[str, Words], values: Mapping[str, Sequence[str]]) -> str:
    return f"autoload -U +X bashcompinit && bashcompinit\n{_bash(verbs, values)}"


def _fish(verbs: Mapping[str, Words], values: Mapping[str, Sequence[str]]) -> str:
    lines = ["# completion of sd-lora"]
    for verb, words in verbs.items():
        here = f"complete -c sd-lora -n '__fish_seen_subcommand_from {verb}'"
        lines.append(f"complete -c sd-lora -n __fish_use_subcommand -f -a {verb} -d {_quoted(words.help)}")
        for option, text in words.options.items():
            names = f" -f -a {_quoted(' '.join(values[option]))}" if option in values else ""
            needs = " -r" if option in words.valued else ""
            lines.append(f"{here} -l {option.removeprefix('--')}{needs}{names} -d {_quoted(text)}")
        if words.settings:
            lines.append(f"{here} -a {_quoted(' '.join(words.settings))}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """For fish."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{' '.join(escaped.split())}'"
