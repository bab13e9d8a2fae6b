"""``python -m docs.tools`` writes the generated parts of the pages anew; ``--check`` only tells which are old."""

from __future__ import annotations

import sys

from docs.tools import pages


def main() -> int:
    """Bring the pages up to date, or return 1 if one is not."""
    check = sys.argv[1:] == ["--check"]
    old = 0
    made = pages.files()
    for path in [*pages.paths(), *made]:
        text = made[path] if path in made else pages.fill(path)
        if not path.exists() or text != path.read_text(encoding="utf-8"):
            old += 1
            print(f"{'out of date' if check else 'written'}: {path.relative_to(pages.FOLDER.parent)}")
            if not check:
                path.write_text(text, encoding="utf-8")
    return 1 if check and old else 0


if __name__ == "__main__":
    sys.exit(main())
