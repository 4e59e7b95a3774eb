"""The sizes of published models, for plans before a model is there: what their config.json says that sizes follow from."""

from typing import Any

# Layers, width and heads of ESM-2; the feed-forward is four times as wide.
ESM2 = {
    "t6_8M": (6, 320, 20),
    "t12_35M": (12, 480, 20),
    "t30_150M": (30, 640, 20),
    "t33_650M": (33, 1280, 20),
    "t36_3B": (36, 2560, 40),
    "t48_15B": (48, 5120, 40),
}
ESM1 = ("esm1b_t33_650M_UR50S", *(f"esm1v_t33_650M_UR90S_{number}" for number in range(1, 6)))
# Layers, width, heads and width within the feed-forward of ESM-C.
ESMC = {
    "biohub/ESMC-300M": (30, 960, 15, 2560),
    "biohub/ESMC-600M": (36, 1152, 18, 3072),
    "biohub/ESMC-6B": (80, 2560, 40, 6912),
    "EvolutionaryScale/esmc-300m-2024-12": (30, 960, 15, 2560),
    "EvolutionaryScale/esmc-600m-2024-12": (36, 1152, 18, 3072),
}
# Tokens, layers, width, width of a head, heads, width within the feed-forward, activation of T5s.
T5 = {
    "Rostlab/prot_t5_xl_half_uniref50-enc": (128, 24, 1024, 128, 32, 16_384, "relu"),
    "Rostlab/prot_t5_xl_uniref50": (128, 24, 1024, 128, 32, 16_384, "relu"),
    "Rostlab/ProstT5": (150, 24, 1024, 128, 32, 16_384, "relu"),
    "Rostlab/ProstT5_fp16": (150, 24, 1024, 128, 32, 16_384, "relu"),
    "ElnaggarLab/ankh-base": (144, 48, 768, 64, 12, 3072, "gated-gelu"),
    "ElnaggarLab/ankh-large": (144, 48, 1536, 64, 16, 3840, "gated-gelu"),
    "ElnaggarLab/ankh2-ext1": (144, 48, 1536, 64, 16, 3840, "gated-silu"),
    "ElnaggarLab/ankh2-ext2": (144, 48, 1536, 64, 16, 3840, "gated-silu"),
}
DNABERT = ("zhihan1996/DNABERT-S", "zhihan1996/DNABERT-2-117M")
# Bytes of a number in the published weights, where it is not float32.
BYTES = {"Rostlab/prot_t5_xl_half_uniref50-enc": 2, "Rostlab/ProstT5_fp16": 2}


def fields() -> dict[str, dict[str, Any]]:
    """By hub id, what `Family.read_config` needs of config.json."""
    found = {f"facebook/esm2_{size}_UR50D": _esm(*sizes, "rotary") for size, sizes in ESM2.items()}
    found |= {f"facebook/{name}": _esm(33, 1280, 20, "absolute") for name in ESM1}
    found |= {name: _esmc(*sizes) for name, sizes in ESMC.items()}
    found |= {name: _t5(*sizes) for name, sizes in T5.items()}
    return found | {name: _dnabert() for name in DNABERT}


def _esm(layers: int, width: int, heads: int, positions: str) -> dict[str, Any]:
    return {
        "model_type": "esm",
        "position_embedding_type": positions,
        "vocab_size": 33,
        "pad_token_id": 1,
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
        "max_position_embeddings": 1026,
        "layer_norm_eps": 1e-5,
        "token_dropout": True,
    }


def _esmc(layers: int, width: int, heads: int, inner: int) -> dict[str, Any]:
    sizes = {"num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": heads}
    return {"model_type": "esmc", "vocab_size": 64, "intermediate_size": inner, **sizes}


def _t5(tokens: int, layers: int, width: int, head: int, heads: int, inner: int, activation: str) -> dict[str, Any]:
    return {
        "model_type": "t5",
        "vocab_size": tokens,
        "num_layers": layers,
        "d_model": width,
        "d_kv": head,
        "num_heads": heads,
        "d_ff": inner,
        "feed_forward_proj": activation,
    }


def _dnabert() -> dict[str, Any]:
    return {
        "model_type": "bert",
        "alibi_starting_size": 512,
        "vocab_size": 4096,
        "num_hidden_layers": 12,
        "hidden_size": 768,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "layer_norm_eps": 1e-12,
    }
