"""Files that hold a secret."""

from pathlib import Path

from adapter.core.errors import Stop


def secret(setting: str, file: Path) -> str:
    """The text of the file that this setting names, without the line ends around it. Raises Stop."""
    try:
        return file.read_text(encoding="utf-8-sig").strip("\r\n")
    except OSError as error:
        raise Stop(f"{setting}: {file} can't be read ({error.strerror}); check path and permissions") from None
    except UnicodeDecodeError:
        raise Stop(f"{setting}: {file} is not UTF-8 text; write one line into it, the secret alone") from None
