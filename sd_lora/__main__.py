"""``python -m sd_lora`` equals ``sd-lora``."""

from sd_lora.commands.app import main

if __name__ == "__main__":
    main()
