"""Errors of the hub's client, as one sentence."""

from __future__ import annotations

from sd_lora.errors import BaseModelError


def hub_error(
    kind: str,
    repo: str,
    revision: str,
    error: Exception,
    *,
    option: str = "model.revision",
    cached: str = "is not in the local cache",
) -> BaseModelError:
    """`error`, raised for a model of this `kind` ("base model") at `revision`, which the user sets with `option`;
    `cached` says which part of it is on this machine."""
    from huggingface_hub import errors

    at = f' at revision "{revision}"' if revision else ""
    if isinstance(error, errors.GatedRepoError):
        return BaseModelError(
            f"{kind} {repo} is only available to those who accept its terms; accept them at "
            f'https://huggingface.co/{repo} and log in with "hf auth login"'
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return BaseModelError(
            f'{kind} "{repo}" is neither a folder or file on this machine nor a public model of the hub; check its '
            'spelling, or log in with "hf auth login" if it is private'
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return BaseModelError(f'{kind} {repo} has no revision "{revision}" on the hub; correct {option}')
    # The client's exceptions for no connection come from whichever HTTP library it was built on.
    named = {base.__name__ for base in type(error).__mro__}
    if named & {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectionError", "TransportError"}:
        return BaseModelError(
            f'{kind} "{repo}"{at} is not a folder or file on this machine, {cached}, and the hub cannot be reached; '
            "go online once, or name a folder or file"
        )
    reason = str(error).strip().split("\n")[0] or type(error).__name__
    return BaseModelError(f'{kind} "{repo}"{at} cannot be fetched from the hub: {reason}')
