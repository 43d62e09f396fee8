"""The users of Redis in deploy/acl: written from the scripts, and each kept from what is another's."""

from deploy.acl.__main__ import FILE
from deploy.acl.users import USERS, acl_file


def test_the_file_is_what_the_scripts_say_today() -> None:
    assert FILE.read_text(encoding="utf-8") == acl_file(), "a script does something new: `python -m deploy.acl`"


def test_nobody_may_harm_others_or_look_at_everything() -> None:
    harmful = {"flushall", "flushdb", "config", "keys", "scan", "debug", "shutdown", "replicaof", "acl", "monitor"}
    for user in USERS:
        rules = user.rules()
        assert "-@all" in rules
        assert not {f"+{command}" for command in harmful} & set(rules)
        assert not {"~*", "&*", "allkeys", "allchannels", "allcommands", "nopass"} & set(rules)


def test_secrets_are_seen_by_those_who_use_them() -> None:
    seen = {user.name: set(user.rules()) for user in USERS}
    assert {name for name, rules in seen.items() if "~iq:key:*" in rules} == {"inferq-api"}
    assert {name for name, rules in seen.items() if "~iq:webhook-secrets:*" in rules} == {"inferq-api", "inferq-keeper"}
    assert {name for name, rules in seen.items() if "~iq:run:*" in rules} == {
        "inferq-api", "inferq-worker", "inferq-keeper",
    }  # fmt: skip
