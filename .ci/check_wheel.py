"""The wheel holds every file of the package, and exactly one file in Twisted's own package.

More under ``twisted/`` would overwrite Twisted's files, and uninstalling would then remove them.
"""

import sys
from pathlib import Path
from zipfile import ZipFile

wheel, source = sys.argv[1:]
names = set(ZipFile(wheel).namelist())

foreign = sorted(name for name in names if name.startswith("twisted/"))
if foreign != ["twisted/plugins/twisted_smtpd_plugin.py"]:
    sys.exit(f"{wheel} has under twisted/: {foreign}")

wanted = {
    path.relative_to(source).as_posix()
    for path in Path(source, "twisted_smtpd").rglob("*")
    if path.is_file() and path.suffix not in (".pyc", ".pyo")
}
mine = {name for name in names if name.startswith("twisted_smtpd/")}
if mine != wanted:
    sys.exit(f"{wheel}: missing {sorted(wanted - mine)}, not in the source {sorted(mine - wanted)}")

rest = sorted(name for name in names - mine - set(foreign) if ".dist-info/" not in name)
if rest:
    sys.exit(f"{wheel} has other files: {rest}")
print(f"wheel: {len(names)} files, as they should be")
