"""Make the inbox's table of what mail programs show: twisted_smtpd/inbox/data/caniemail.json.

    python scripts/caniemail_data.py

Takes the data of caniemail.com (MIT licence, see the file beside it) from npm's package ``caniemail``, and keeps of
each feature its title and the newest result of each mail program.  Needs npm and the network.
"""

from __future__ import annotations

import json
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent.parent / "twisted_smtpd" / "inbox" / "data"


def newest(results: dict[str, str]) -> str:
    """The letter of the newest result: y(es), a(lmost), n(o) or u(nknown)."""
    return results[list(results)[-1]][0]


def condensed(data: dict[str, Any]) -> dict[str, Any]:
    """The table."""
    families, platforms = data["nicenames"]["family"], data["nicenames"]["platform"]
    features = [feature for feature in data["data"] if feature["category"] != "others"]
    known = sorted({(family, place) for one in features for family in one["stats"] for place in one["stats"][family]})
    table = {
        feature["slug"]: {
            "title": feature["title"].replace("`", ""),
            "support": "".join(
                newest(feature["stats"][family][place]) if feature["stats"].get(family, {}).get(place) else "u"
                for family, place in known
            ),
        }
        for feature in features
    }
    programs = [f"{families[family].replace('Mozilla ', '')} ({platforms[place]})" for family, place in known]
    return {"updated": data["last_update_date"][:10], "programs": programs, "features": table}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(("npm", "pack", "--silent", "caniemail@1.0.5"), cwd=folder, check=True)
        (archive,) = Path(folder).glob("*.tgz")
        with tarfile.open(archive) as packed:
            file = packed.extractfile("package/data/caniemail.json")
            assert file is not None
            data = json.load(file)
    text = json.dumps(condensed(data), separators=(",", ":"), ensure_ascii=False).replace('},"', '},\n"')
    (HERE / "caniemail.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
