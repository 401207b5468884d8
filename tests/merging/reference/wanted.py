"""What mergekit is asked: one recipe per case, over the models `base`, `a`, `b` and `c` of `inputs.py`.

Random methods are asked only what does not depend on the draw: a density of 1 or of 0.
"""

from collections.abc import Sequence
from itertools import product
from typing import Any

Recipe = dict[str, Any]

METHOD_TENSORS = [
    "model.layers.0.self_attn.k_proj.weight",
    "model.layers.0.self_attn.v_proj.weight",
    "model.layers.0.self_attn.o_proj.weight",
    "model.layers.1.self_attn.k_proj.weight",
    "model.layers.1.self_attn.v_proj.weight",
    "model.layers.1.self_attn.o_proj.weight",
    "model.layers.1.mlp.gate_proj.weight",
    "model.layers.1.mlp.down_proj.weight",
    "model.layers.1.input_layernorm.weight",
]
"""The tensors kept of a case that is about a method: each kind of input of `inputs.py` is among them."""

_ANTIPARALLEL = "model.layers.1.self_attn.k_proj.weight"
LEFT_OUT = {
    case: [_ANTIPARALLEL]
    for case in (
        "karcher/parallel",
        "nuslerp/columns",
        "nuslerp/negative",
        "nuslerp/parallel",
        "nuslerp/parallel_columns",
        "nuslerp/rows",
    )
}
"""Tensors not kept of a case: between v and nearly -v, rounding of the cosine decides which way the arc goes."""

LAYER_SUFFIXES = ["self_attn.k_proj.weight", "mlp.up_proj.weight", "input_layernorm.weight"]
"""The tensors kept of each layer of a case that is about layers."""


def entry(model: str, **parameters: Any) -> Recipe:
    return {"model": model, "parameters": parameters} if parameters else {"model": model}


def recipe(method: str, models: Sequence[Recipe], base: str | None = None, **parameters: Any) -> Recipe:
    """Return a recipe of whole models in float32."""
    wanted: Recipe = {"merge_method": method, "models": list(models)}
    if base is not None:
        wanted["base_model"] = base
    if parameters:
        wanted["parameters"] = parameters
    return wanted | {"dtype": "float32"}


def sliced(method: str, slices: Sequence[Recipe], base: str | None = None, **parameters: Any) -> Recipe:
    wanted = recipe(method, [], base, **parameters)
    del wanted["models"]
    return wanted | {"slices": list(slices)}


def source(model: str, first: int, end: int, **parameters: Any) -> Recipe:
    return entry(model, **parameters) | {"layer_range": [first, end]}


def weighted(*weights: float, **same: Any) -> list[Recipe]:
    """Return entries for `a`, `b`, `c` with these weights; `same` are further parameters of each."""
    return [entry(model, weight=weight, **same) for model, weight in zip("abc", weights, strict=False)]


def linear_cases() -> dict[str, Recipe]:
    return {
        "linear/two": recipe("linear", weighted(0.3, 0.9)),
        "linear/three": recipe("linear", weighted(1.0, 0.3, 0.5)),
        "linear/normalize_off": recipe("linear", weighted(0.3, 0.9), normalize=False),
        "linear/negative": recipe("linear", weighted(1.5, -0.4)),
        "linear/zero_weight": recipe("linear", weighted(1.0, 0.0, 0.5)),
        "linear/one_weight_for_all": recipe("linear", [entry("a"), entry("b")], weight=0.7),
        "linear/base_listed": recipe("linear", [entry("base", weight=0.5), *weighted(0.3, 0.9)], "base"),
        "linear/base_unlisted": recipe("linear", [entry("a"), entry("b")], "base", weight=0.7),
    }


def spherical_cases() -> dict[str, Recipe]:
    pair = [entry("base"), entry("a")]
    triple = [entry("a"), entry("b"), entry("c")]
    cases = {f"slerp/t_{t}": recipe("slerp", pair, "base", t=t) for t in (0, 0.25, 0.5, 1, 1.3)}
    cases["slerp/base_second"] = recipe("slerp", [entry("a"), entry("base")], "base", t=0.25)
    cases["slerp/equal_models"] = recipe("slerp", [entry("base"), entry("b")], "base", t=0.25)
    for base, (row_wise, flatten) in product((None, "base"), ((False, True), (False, False), (True, False))):
        kind = "flatten" if flatten else "rows" if row_wise else "columns"
        name = f"nuslerp/{kind}{'_base' if base else ''}"
        parameters = {"nuslerp_row_wise": row_wise, "nuslerp_flatten": flatten}
        cases[name] = recipe("nuslerp", weighted(0.3, 0.9), base, **parameters)
    cases["nuslerp/defaults"] = recipe("nuslerp", weighted(1.0, 3.0))
    cases["nuslerp/row_wise_beside_flatten"] = recipe("nuslerp", weighted(0.3, 0.9), nuslerp_row_wise=True)
    cases["nuslerp/negative"] = recipe("nuslerp", weighted(1.5, -0.4))
    cases["nuslerp/zero_weights"] = recipe("nuslerp", weighted(0.0, 0.0))
    parallel = [entry("base", weight=0.3), entry("a", weight=0.9)]
    cases["nuslerp/parallel"] = recipe("nuslerp", parallel)
    cases["nuslerp/parallel_columns"] = recipe("nuslerp", parallel, nuslerp_flatten=False)
    for base in (None, "base"):
        suffix = "_base" if base else ""
        cases[f"multislerp/two{suffix}"] = recipe("multislerp", weighted(0.3, 0.9), base)
        cases[f"multislerp/three{suffix}"] = recipe("multislerp", weighted(0.5, 0.3, 0.2), base)
        cases[f"multislerp/unnormalized{suffix}"] = recipe(
            "multislerp", weighted(0.5, 0.3, 0.8), base, normalize_weights=False
        )
    cases["multislerp/negative"] = recipe("multislerp", weighted(1.5, -0.4, 0.2))
    cases["multislerp/eps"] = recipe("multislerp", weighted(0.5, 0.3, 0.2), eps=0.01)
    cases["multislerp/parallel"] = recipe("multislerp", parallel)
    cases["multislerp/antiparallel"] = recipe("multislerp", [entry("base", weight=1.0), entry("a", weight=1.0)])
    cases["multislerp/one"] = recipe("multislerp", [entry("a", weight=0.3)])
    cases["multislerp/one_base"] = recipe("multislerp", [entry("a", weight=0.3)], "base")
    cases["karcher/two"] = recipe("karcher", triple[:2])
    cases["karcher/three"] = recipe("karcher", triple)
    cases["karcher/four_with_base"] = recipe("karcher", [entry("base"), *triple], "base")
    cases["karcher/base_unlisted"] = recipe("karcher", triple, "base")
    cases["karcher/one_iteration"] = recipe("karcher", triple, max_iter=1)
    cases["karcher/loose"] = recipe("karcher", triple, tol=0.3)
    cases["karcher/parallel"] = recipe("karcher", pair)
    return cases


def task_vector_cases() -> dict[str, Recipe]:
    cases = {
        "task_arithmetic/one": recipe("task_arithmetic", weighted(0.2), "base"),
        "task_arithmetic/three": recipe("task_arithmetic", weighted(0.2, -0.5, 1.3), "base"),
        "task_arithmetic/normalize": recipe("task_arithmetic", weighted(0.2, 0.5, 0.9), "base", normalize=True),
        "task_arithmetic/normalize_one": recipe("task_arithmetic", weighted(0.2), "base", normalize=True),
        "task_arithmetic/weights_cancel": recipe("task_arithmetic", weighted(0.5, -0.5), "base", normalize=True),
        "task_arithmetic/lambda": recipe("task_arithmetic", weighted(0.2, 0.5), "base", **{"lambda": 0.6}),
        "task_arithmetic/base_listed": recipe(
            "task_arithmetic", [entry("base", weight=0.9), *weighted(0.2, 0.5)], "base", normalize=True
        ),
    }
    for method in ("ties", "breadcrumbs", "breadcrumbs_ties"):
        for density in (0.2, 0.5, 0.9):
            models = weighted(0.2, 0.5, 0.9, density=density)
            cases[f"{method}/density_{density}"] = recipe(method, models, "base")
        models = weighted(0.2, 0.5, 0.9, density=0.5)
        cases[f"{method}/other_normalize"] = recipe(method, models, "base", normalize=method != "ties")
        models = weighted(0.2, -0.5, 1.3, density=0.5)
        cases[f"{method}/negative"] = recipe(method, models, "base")
        cases[f"{method}/rescale_lambda"] = recipe(method, models, "base", rescale=True, **{"lambda": 0.6})
        cases[f"{method}/two"] = recipe(method, weighted(0.2, 0.5, density=0.5), "base")
        cases[f"{method}/one"] = recipe(method, weighted(0.2, density=0.5), "base")
        cases[f"{method}/zero_weight"] = recipe(method, weighted(0.0, 0.5, 0.9, density=0.5), "base")
        cases[f"{method}/density_1"] = recipe(method, weighted(0.2, 0.5, 0.9, density=1), "base")
        cases[f"{method}/density_0"] = recipe(method, weighted(0.2, 0.5, 0.9, density=0), "base")
        cases[f"{method}/density_0.05"] = recipe(method, weighted(0.2, 0.5, 0.9, density=0.05), "base")
        cases[f"{method}/own_densities"] = recipe(
            method, [entry(m, weight=w, density=d) for m, w, d in (("a", 0.7, 0.3), ("b", 0.4, 0.8))], "base"
        )
        if method != "ties":
            for gamma in (0, 0.1, 0.4):
                models = weighted(0.2, 0.5, 0.9, density=0.7, gamma=gamma)
                cases[f"{method}/gamma_{gamma}"] = recipe(method, models, "base")
    cases["ties/int8_mask"] = recipe("ties", weighted(0.2, 0.5, 0.9, density=0.5), "base", int8_mask=True)
    listed = [entry("base", weight=0.9, density=0.5), *weighted(0.2, 0.5, 0.9, density=0.5)]
    cases["ties/base_listed"] = recipe("ties", listed, "base")
    for method in ("dare_linear", "dare_ties", "della_linear", "della"):
        models = weighted(0.2, 0.5, 0.9, density=1)
        cases[f"{method}/other_normalize"] = recipe(method, models, "base", normalize=method != "della")
        cases[f"{method}/defaults"] = recipe(method, weighted(0.2, -0.5, 1.3), "base")
        cases[f"{method}/density_0"] = recipe(method, weighted(0.2, 0.5, density=0), "base")
        if method.startswith("della"):
            continue
        models = weighted(0.2, 0.5, density=1)
        cases[f"{method}/rescale_off"] = recipe(method, models, "base", rescale=False, **{"lambda": 0.6})
    return cases


def other_cases() -> dict[str, Recipe]:
    pair = [entry("base"), entry("a")]
    triple = [entry("a"), entry("b"), entry("c")]
    cases = {f"sce/topk_{topk}": recipe("sce", triple, "base", select_topk=topk) for topk in (0, 0.02, 0.3, 0.5, 1)}
    cases["sce/two"] = recipe("sce", triple[:2], "base", select_topk=0.5)
    cases["sce/one"] = recipe("sce", triple[:1], "base")
    cases["sce/base_listed"] = recipe("sce", [entry("base"), *triple], "base", select_topk=0.3)
    for on in (False, True):
        suffix = "_filter_wise" if on else ""
        cases[f"model_stock/two{suffix}"] = recipe("model_stock", triple[:2], "base", filter_wise=on)
        cases[f"model_stock/three{suffix}"] = recipe("model_stock", triple, "base", filter_wise=on)
    for t in (0, 0.01, 0.05, 1):
        cases[f"nearswap/t_{t}"] = recipe("nearswap", pair, "base", t=t)
    cases["nearswap/base_second"] = recipe("nearswap", [entry("a"), entry("base")], "base", t=0.05)
    cases["arcee_fusion/base_first"] = recipe("arcee_fusion", pair, "base")
    cases["arcee_fusion/base_second"] = recipe("arcee_fusion", [entry("b"), entry("base")], "base")
    for count in (1, 2, 3):
        cases[f"ram/{count}"] = recipe("ram", triple[:count], "base")
        cases[f"ramplus_tl/{count}"] = recipe("ramplus_tl", triple[:count], "base")
    cases["ram/epsilon"] = recipe("ram", triple, "base", epsilon=0.08)
    cases["ramplus_tl/epsilon"] = recipe("ramplus_tl", triple, "base", epsilon=0.08)
    cases["ramplus_tl/r_alpha"] = recipe("ramplus_tl", triple, "base", r=0.7, alpha=2.5)
    cases["passthrough/one"] = recipe("passthrough", [entry("a")])
    cases["passthrough/scale"] = recipe("passthrough", [entry("a", scale=0.5)])
    cases["passthrough/scale_filtered"] = recipe(
        "passthrough", [entry("a", scale=[{"filter": "o_proj", "value": 0.0}, {"filter": "down_proj", "value": 2.0}])]
    )
    return cases


def layer_cases() -> dict[str, Recipe]:
    """Return the cases about which value and which layer reaches which tensor."""
    t = [
        {"filter": "self_attn", "value": [0, 0.5, 0.3, 0.7, 1]},
        {"filter": "mlp", "value": [1, 0.5, 0]},
        {"value": 0.5},
    ]
    whole = {"sources": [source("base", 0, 3), source("a", 0, 3)]}
    halves = [
        {"sources": [source("base", 0, 2), source("a", 0, 2)], "parameters": {"t": [0.2, 0.4]}},
        {"sources": [source("base", 2, 3), source("a", 2, 3)], "parameters": {"t": [0.6, 0.9]}},
    ]
    own = [
        {"sources": [source("a", 0, 2, weight=[0.1, 0.4]), source("b", 0, 2, weight=0.6)]},
        {"sources": [source("c", 1, 3, weight=[0.7, 0.2]), source("b", 1, 3, weight=0.9)]},
    ]
    filtered = [{"filter": "layers.1.", "value": 0.8}, {"filter": "lm_head", "value": 0.3}, {"value": 0.1}]
    return {
        "layers/gradient_models": recipe("slerp", [entry("base"), entry("a")], "base", t=[0.2, 0.4, 0.9]),
        "layers/gradient_two_entries": recipe("slerp", [entry("base"), entry("a")], "base", t=[0.2, 0.9]),
        "layers/gradient_filters": recipe("slerp", [entry("base"), entry("a")], "base", t=t),
        "layers/gradient_filters_slice": sliced("slerp", [whole], "base", t=t),
        "layers/gradient_slices": sliced("slerp", halves, "base"),
        "layers/weights_of_sources": sliced("linear", own, normalize=False),
        "layers/weights_of_sources_task": sliced(
            "task_arithmetic",
            [{"sources": [*place["sources"], source("base", at, at + 2)]} for at, place in enumerate(own)],
            "base",
        ),
        "layers/source_before_slice_before_top": sliced(
            "linear",
            [
                {"sources": [source("a", 0, 1, weight=0.2), source("b", 0, 1)], "parameters": {"weight": 0.5}},
                {"sources": [source("a", 1, 3), source("b", 1, 3)]},
            ],
            weight=0.8,
            normalize=False,
        ),
        "layers/base_of_a_slice": sliced(
            "slerp",
            [
                {"sources": [source("base", 0, 1), source("a", 0, 1)], "base_model": "a"},
                {"sources": [source("base", 1, 3), source("a", 1, 3)]},
            ],
            "base",
            t=0.2,
        ),
        "layers/filter_falls_through_to_top": recipe(
            "linear", [entry("a", weight=[{"filter": "mlp", "value": 0.9}]), entry("b")], weight=0.4, normalize=False
        ),
        "layers/filter_by_layer": recipe("task_arithmetic", [entry("a", weight=filtered)], "base"),
        # a filter meets the name of the tensor that comes in, or that goes out?
        "layers/filter_of_a_moved_layer": sliced(
            "passthrough",
            [{"sources": [source("a", 1, 3, scale=[{"filter": "layers.1.", "value": 0.5}])]}],
        ),
        "layers/shared_filter_of_a_moved_layer": sliced(
            "slerp",
            [{"sources": [source("base", 1, 3), source("a", 1, 3)]}],
            "base",
            t=[{"filter": "layers.1.", "value": 0.8}, {"value": 0.1}],
        ),
        "layers/density_gradient": recipe(
            "ties",
            [
                entry("a", weight=1.0, density=[1, 0.7, 0.1]),
                entry("b", weight=[0, 0.3, 0.7, 1], density=0.5),
                entry("c", weight=[{"filter": "mlp", "value": 0.5}, {"value": 0}], density=0.33),
            ],
            "base",
            normalize=True,
            int8_mask=True,
        ),
        "layers/stacked": sliced("passthrough", [{"sources": [source("a", 0, 2)]}, {"sources": [source("b", 1, 3)]}]),
        "layers/repeated": sliced("passthrough", [{"sources": [source("a", 0, 2)]}, {"sources": [source("a", 1, 3)]}]),
        "layers/reordered": sliced("passthrough", [{"sources": [source("a", k, k + 1)]} for k in (2, 0, 1)]),
        "layers/dropped": sliced("passthrough", [{"sources": [source("a", 0, 1)]}, {"sources": [source("a", 2, 3)]}]),
        "layers/other_layer_of_each": sliced(
            "linear", [{"sources": [source("a", 0, 2, weight=0.3), source("b", 1, 3, weight=0.9)]}]
        ),
        "layers/more_sources_in_the_last_slice": sliced(
            "linear",
            [
                {"sources": [source("c", 0, 1, weight=1.0)]},
                {"sources": [source("a", 1, 3, weight=0.3), source("b", 1, 3, weight=0.9)]},
            ],
        ),
        "layers/modules": {
            "merge_method": "linear",
            "modules": {"default": {"models": weighted(0.3, 0.9)}},
            "dtype": "float32",
        },
    }


def wanted() -> dict[str, Recipe]:
    """Return every case by its name, `METHOD/WHAT` or `layers/WHAT`."""
    groups = [linear_cases(), spherical_cases(), task_vector_cases(), other_cases(), layer_cases()]
    return {name: case for group in groups for name, case in group.items()}
