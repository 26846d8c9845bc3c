"""What a skops file would make, looked at before anything is made."""

from __future__ import annotations

import io
import json
import zipfile

# All that a table needs. skops by itself would make any estimator, and functions of NumPy and SciPy.
LOADERS = {
    "DictNode": {"builtins.dict"},
    "ListNode": {"builtins.list"},
    "TupleNode": {"builtins.tuple"},
    "JsonNode": {"builtins.str"},
    "NdArrayNode": {"numpy.ndarray"},
    "TypeNode": {"builtins.str", "numpy.float32"},
    "ObjectNode": {"sklearn.preprocessing._encoders.OneHotEncoder"},
}
SEEN = "CachedNode"  # names an object that another node of the file makes


def foreign_types(content: bytes) -> list[str]:
    """Return the types that a skops file would make and a table has no use for, sorted.

    Parameters
    ----------
    content : bytes
        Of the file.

    Raises
    ------
    ValueError
        The file says that it unpacks to more than it is long; skops itself packs nothing.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > len(content):
            raise ValueError(f"its {len(content):,} bytes say that they unpack to {unpacked:,}")
        waiting, found = [json.loads(archive.read("schema.json"))], set()
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if "__loader__" in node and node["__loader__"] != SEEN:
                made = f"{node['__module__']}.{node['__class__']}"
                if made not in LOADERS.get(node["__loader__"], ()):
                    found.add(made)
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node
    return sorted(found)
