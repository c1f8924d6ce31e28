"""A choice of each loss, and of those of its forms that are other code."""

from typing import Any

CHOICES: dict[str, Any] = {
    "ge2e": {"name": "ge2e"},
    "ge2e, contrast": {"name": "ge2e", "variant": "contrast"},
    "softmax": {"name": "softmax"},
    "am_softmax": {"name": "am_softmax", "margin_end_step": 10},
    "aam_softmax": {"name": "aam_softmax", "sub_centres": 3, "inter_top_k": 2},
    "prototypical": {"name": "prototypical"},
    "angular_prototypical": {"name": "angular_prototypical"},
    "softmax_prototypical": {"name": "softmax_prototypical"},
    "triplet": {"name": "triplet", "margin": 2.0},
    "triplet, drawn": {"name": "triplet", "mining": "hard_rank", "margin": 2.0},
    "sup_con": {"name": "sup_con"},
    "nt_xent": {"name": "nt_xent"},
    "sum": [{"name": "softmax"}, {"name": "triplet", "weight": 0.5, "margin": 2.0}],
}
