"""YAML as this package writes it: the same to readers of YAML 1.1 (PyYAML, and so mergekit) and of 1.2."""

import re
from typing import Any

import yaml

from unspoiled.config._yaml import NUMBER


class _Dumper(yaml.SafeDumper):
    """PyYAML's writer, with list items indented under their key and nothing written as an alias."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_list(dumper: yaml.SafeDumper, items: Any) -> yaml.Node:
    flow = not any(isinstance(item, dict | list | tuple) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=flow)


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    # PyYAML's reader changes these line breaks unless they are escaped, which only double quotes can do
    style = '"' if re.search("[\r\x85\u2028\u2029]", text) else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(list, _represent_list)
_Dumper.add_representer(tuple, _represent_list)
_Dumper.add_representer(str, _represent_text)
# PyYAML quotes text that YAML 1.1 would read as a number; this adds what 1.2 would, such as '1e-3' and '08'.
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"(?:{NUMBER.pattern})$"), list("-+.0123456789"))


def dump_yaml(value: Any) -> str:
    """Write plain values as YAML: keys in their order, lists of scalars in brackets, long text as a block.

    `load_yaml` gives back an equal value (floats to the last bit); so does a YAML 1.1 reader.
    """
    return yaml.dump(
        value,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=False,
        width=90,  # a list in brackets runs up to one entry past this
    )
