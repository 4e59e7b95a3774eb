"""The three forms in which ESM-C's weights were published: our modules to the checkpoint's, by tensor names.

Each is a table for `Checkpoint.take_joined`. Imports no torch.
"""

import re
from collections.abc import Iterable, Mapping

Layout = Mapping[str, tuple[str, ...]]

# EvolutionaryScale's .pth files (package esm, esm/models/esmc.py).
EVOLUTIONARYSCALE: Layout = {
    "embedding": ("embed",),
    "layers.*.attention_norm": ("transformer.blocks.*.attn.layernorm_qkv.0",),
    "layers.*.qkv": ("transformer.blocks.*.attn.layernorm_qkv.1",),
    "layers.*.query_norm": ("transformer.blocks.*.attn.q_ln",),
    "layers.*.key_norm": ("transformer.blocks.*.attn.k_ln",),
    "layers.*.out": ("transformer.blocks.*.attn.out_proj",),
    "layers.*.feed_forward_norm": ("transformer.blocks.*.ffn.0",),
    "layers.*.up": ("transformer.blocks.*.ffn.1",),
    "layers.*.down": ("transformer.blocks.*.ffn.3",),
    "final_norm": ("transformer.norm",),
}
# Biohub's first release, whose modules were those of NVIDIA's Transformer Engine.
TRANSFORMER_ENGINE: Layout = {
    **EVOLUTIONARYSCALE,
    "layers.*.attention_norm": ("transformer.blocks.*.attn.layernorm_qkv.layer_norm",),
    "layers.*.qkv": ("transformer.blocks.*.attn.layernorm_qkv",),
    "layers.*.feed_forward_norm": ("transformer.blocks.*.ffn.layer_norm",),
    "layers.*.up": ("transformer.blocks.*.ffn.fc1",),
    "layers.*.down": ("transformer.blocks.*.ffn.fc2",),
}
# transformers' `EsmcModel`.
TRANSFORMERS: Layout = {
    "embedding": ("embed_tokens",),
    "layers.*.attention_norm": ("layers.*.input_layernorm",),
    "layers.*.qkv": tuple(f"layers.*.self_attn.{part}_proj" for part in "qkv"),
    "layers.*.query_norm": ("layers.*.self_attn.q_norm",),
    "layers.*.key_norm": ("layers.*.self_attn.k_norm",),
    "layers.*.out": ("layers.*.self_attn.o_proj",),
    "layers.*.feed_forward_norm": ("layers.*.post_attention_layernorm",),
    "layers.*.up": ("layers.*.mlp.gate_proj", "layers.*.mlp.up_proj"),
    "layers.*.down": ("layers.*.mlp.down_proj",),
    "final_norm": ("norm",),
}


def plain(name: str) -> str:
    """A tensor's name without the encoder's prefix, and with a point where Transformer Engine has an underscore."""
    return re.sub(r"\.(layer_norm|fc1|fc2)_(weight|bias)$", r".\1.\2", name.removeprefix("esmc."))


def layout(names: Iterable[str]) -> Layout:
    """The layout of a checkpoint with these `plain` names; transformers' where none fits, of which tensors then lack."""
    known = frozenset(names)
    for table in (EVOLUTIONARYSCALE, TRANSFORMER_ENGINE):
        if f"{table['layers.*.qkv'][0].replace('*', '0')}.weight" in known:
            return table
    return TRANSFORMERS


def is_of_a_layer(name: str) -> bool:
    """Whether a tensor of this `plain` name is one of a layer's; those of rotary positions can be computed anew."""
    return name.startswith(("transformer.blocks.", "layers.")) and "rotary" not in name
