"""``python -m deploy.acl``: write the ACL file anew, after a script has changed what it does."""

from pathlib import Path

from deploy.acl.users import acl_file

FILE = Path(__file__).with_name("users.acl")

if __name__ == "__main__":
    FILE.write_text(acl_file(), encoding="utf-8")
