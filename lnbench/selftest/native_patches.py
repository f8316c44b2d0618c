"""Bugs planted in the native backend's own sources: each is a text that occurs once in a file, and what replaces it.

Owns the list. Finding the sources, patching and compiling is `lnbench.selftest.native_sources`'s.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Edit:
    """In `file` (below src), `text`, which occurs once, becomes `replacement`."""

    file: str
    text: str
    replacement: str


@dataclass(frozen=True, slots=True)
class Patch:
    """One bug: name, family, sentence, passes, edits, a public report of the same mistake."""

    name: str
    family: str
    sentence: str
    passes: tuple[str, ...]
    edits: tuple[Edit, ...]
    like: str = ""


_F, _B, _FB = ("forward",), ("backward",), ("forward", "backward")


def _patch(
    name: str, family: str, passes: tuple[str, ...], sentence: str, *edits: tuple[str, str, str], like: str = ""
) -> Patch:
    return Patch(name, family, sentence, passes, tuple(Edit(*e) for e in edits), like)


PATCHES = (
    _patch("native_tail_lanes_count", "E", _FB, "lanes behind the row's end count as 0 - pilot in the sums",
           ("statistics.h", "v_first_lanes(v_sub(d, k), n)", "v_sub(d, k)"), like="triton-lang/triton#9838"),
    _patch("native_tail_unwritten", "E", _F, "columns behind the last whole vector of y are not written",
           ("forward_rows.h", "if (j < end) put_some(p, w, s, how, j, end - j);", "")),
    _patch("native_edge_unwritten", "E", _F, "columns before the first whole line are left out where stores begin at a line",
           ("forward_rows.h", "    put_range(p, w, rows, 0, w->peel, 0);\n", "")),
    _patch("native_edge_of_dx_unwritten", "E", _B, "columns of dx before the first whole line are left out",
           ("backward_rows.h", "    put_range(p, w, rows, 0, w->peel, 0);\n", "")),
    _patch("native_overlapping_tail", "I", _F, "the last vector of y overlaps the one before it and reads what that wrote",
           ("forward_rows.h", "if (j < end) put_some(p, w, s, how, j, end - j);",
            "if (j < end && end >= LANES) put(p, w, s, (way){how.rows, 0, how.centred}, end - LANES);\n"
            "    else if (j < end) put_some(p, w, s, how, j, end - j);")),
    _patch("native_last_block_lost", "F", _B, "the last of more than four blocks of rows is not added to dgamma and dbeta",
           ("backward.c", "i < least(b + run, t->blocks); i++", "i < least(b + run, t->blocks - (t->blocks > 4)); i++")),
    _patch("native_blocks_share_partials", "J", _B, "two blocks of rows, and so two threads, write the same partial sums",
           ("backward.c", "(2 * block + which) * t->pitch", "(2 * (block - block % 2) + which) * t->pitch"),
           like="tenstorrent/tt-metal#46799"),
    _patch("native_last_share_lost", "G", _FB, "the last of more than six shares of the rows is not done",
           ("layer_norm.c", "if (first < last) ph->fn", "if (first < last && (parts <= 6 || part < parts - 1)) ph->fn")),
    _patch("native_seam_of_columns", "E", _F, "the first vector of every share of columns but the first is not written",
           ("forward.c", "int64_t begin = first * CHUNK;", "int64_t begin = first * CHUNK + (first ? LANES : 0);")),
    _patch("native_last_chunk_lost", "F", _F, "the last of more than two chunks of columns is not in the statistics",
           ("forward.c", "for (int64_t i = 0; i < t->chunks; i++) progress_add",
            "for (int64_t i = 0; i < t->chunks - (t->chunks > 2); i++) progress_add")),
    _patch("native_reads_past_row", "I", _F, "a whole vector is read where the row ends, and masked afterwards",
           ("statistics.h", "s[1] = v_load_some(x, j, n - j, t);", "s[1] = v_first(v_load(x, j, t), n - j);"),
           like="microsoft/onnxruntime#17943"),
    _patch("native_writes_past_dgamma", "I", _B, "the last vector of dgamma and dbeta is written whole",
           ("backward.c", "v_store_some(out, j, end - j, sum_blocks(t, which, j, end - j), affine)",
            "v_store(out, j, sum_blocks(t, which, j, end - j), affine)"), like="karpathy/llm.c#821"),
    _patch("native_workspace_too_small", "G", _B, "the workspace has no room for the space between partial sums",
           ("layer_norm.c", "p->partial_bytes = t->blocks * 2 * t->pitch * real",
            "p->partial_bytes = t->blocks * 2 * c->cols * real"), like="pytorch/pytorch#80930"),
    _patch("native_partials_not_cleared", "J", _B, "partial sums begin with what the workspace held",
           ("backward.c", "for (int64_t j = begin; j < end && to.dgamma; j += LANES)",
            "for (int64_t j = begin; j < begin && to.dgamma; j += LANES)"), like="torch/nn#318"),
    _patch("native_block_not_moved", "F", _B, "partial sums of a block are not moved out of the place that the next one uses",
           ("backward.c", "if (to.dgamma && place != b) move(to, gradients_of(t, b), p.n);", "")),
    _patch("native_statistics_of_first_row", "F", _F, "both rows of a pair are written with the statistics of the first",
           ("forward_rows.h", "EACH(how.rows, s[r] = scale_of(&w->stat[r]););",
            "EACH(how.rows, s[r] = scale_of(&w->stat[0]););")),
    _patch("native_sums_of_first_row", "F", _B, "both rows of a pair take the first one's mean of gamma * dy * xhat",
           ("backward_rows.h", "summed(in->stat[r], in->g[r], in->gx[r], p->n)",
            "summed(in->stat[r], in->g[r], in->gx[0], p->n)")),
    _patch("native_mean_left_in_products", "A", _B, "the sum of g * x stands for that of g * (x - mean) where means are small",
           ("backward_sums.h", "(mean_gx - (double)s.lo * mean_g) * (double)s.rstd", "mean_gx * (double)s.rstd")),
    _patch("native_way_of_first_row", "F", _F, "both rows of a pair are taken for rows with a small mean when the first is one",
           ("forward_rows.h", "w->stat[0].centred && w->stat[rows - 1].centred", "w->stat[0].centred")),
    _patch("native_way_of_first_row_backward", "F", _B, "backward, both rows of a pair go the way of the first one",
           ("backward_sums.h", "is_centred(&in->stat[0], t) == is_centred(&in->stat[1], t)", "t == t")),
    _patch("native_pilot_of_first_row", "F", _F, "both rows of a pair are added up around 0 when the first one's pilot is",
           ("forward_rows.h", "is_raw(to[0].k, t) != is_raw(to[1].k, t)", "t != t")),
    _patch("native_variance_of_pilot", "A", _F, "the variance is taken around the pilot instead of the mean",
           ("statistics.h", "mean_of(wide_value(p->second), n) - delta * delta;", "mean_of(wide_value(p->second), n);")),
    _patch("native_absent_beta_is_one", "L", _F, "an absent beta is read as ones",
           ("forward_rows.h", "param_of(c->beta, 0, affine)", "param_of(c->beta, 1, affine)")),
    _patch("native_narrow_offsets", "I", _FB, "byte offsets of rows in 32 bits",
           ("kernel.h", "return (const char *)p + i * size_of(t);", "return (const char *)p + (int)(i * size_of(t));"),
           like="vllm-project/vllm#44027"),
    _patch("native_truncated_bfloat16", "B", _FB, "bfloat16 results are truncated instead of rounded",
           ("simd/baseline.h", "(bits + 0x7fff + (bits >> 16 & 1)) >> 16", "bits >> 16"),
           ("simd/f32_avx2.h", "_mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd)",
            "_mm256_and_si256(bits, _mm256_or_si256(bits, odd))"), like="amd/IRON#139"),
)  # fmt: skip
