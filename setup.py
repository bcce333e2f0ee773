"""Only the list of packages: `packages.find` alone cannot map `configs/` and `webui/` into the package."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["sd_lora", "sd_lora.*"]),
        *(f"sd_lora.{name}" for name in find_packages(include=["configs", "webui", "webui.*"])),
    ]
)
