"""Names of files and folders from outside: in one Unicode form, without what systems leave."""

import unicodedata

from ebmvae.core.messages import UserError

# What Windows, macOS, file servers and archives leave, in lower case; hidden files need no entry.
LEFTOVERS = {
    *("__macosx", "icon\r", "network trash folder", "temporary items"),
    *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "picasa.ini"),
    *("$recycle.bin", "recycler", "system volume information", "lost+found"),
    *("@eadir", "@recycle", "@tmp", "#recycle", "#snapshot"),
}
EXAMPLES = 3  # of many names, in a message


def normal(text):
    """`text` in one Unicode form (NFC): macOS and zips may write e and two dots instead of ë."""
    return unicodedata.normalize("NFC", text)


def is_leftover(file):
    """Whether `file` is hidden (.DS_Store, ._x) or of a name that systems give, not users."""
    return file.name.startswith(".") or file.name.lower() in LEFTOVERS


def listed(folder):
    """Files and folders inside `folder` but leftovers, sorted by name in one Unicode form."""
    kept = (file for file in folder.iterdir() if not is_leftover(file))
    return sorted(kept, key=_order)


def _order(file):
    return normal(file.name), file.name


def unique(pairs, what):
    """{key: file} of (key, file) pairs; raises `UserError` naming two files of one key."""
    files = {}
    for key, file in pairs:
        if key in files:
            raise UserError(
                f"{what}: {files[key].name!r} and {file.name!r} are one name there; keep one"
            )
        files[key] = file
    return files


def examples(names):
    """A few of `names` as text, with dots where there are more."""
    first = [str(name) for name in names[:EXAMPLES]]
    return ", ".join(first + ["..."] * (len(names) > EXAMPLES))
