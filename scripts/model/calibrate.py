#!/usr/bin/env python3
"""Measure the activation maxima that convert.py smooths by (activations.npz): by channel, the largest absolute
input of the q/k/v and the first feed-forward matmul of every layer, over some texts run in fp32. The file in
this folder was made from 60 paragraphs in English, Chinese, German, Russian and Arabic.

usage: calibrate.py e5-small-q4.bin IDS.json activations.npz      (needs numpy, onnx and onnxruntime)

IDS.json: [[token ids of one text, without <s> and </s>], ...]; some 50 texts like those to be embedded.
"""
import json
import os
import sys
import tempfile

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

import convert


def fp32_linear(g, b, x, names, rows, tag, after_gelu=False):
    w = np.concatenate([b.dequantised(n, rows) for n in names])
    return g.op("MatMul", [x, g.const(tag + ".w", w.T)])


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    b = convert.Weights(sys.argv[1])
    m = convert.build(b, fp32_linear)
    inputs = {n.input[1][:-len(".w")]: n.input[0] for n in m.graph.node if n.op_type == "MatMul"}
    inputs = {tag: x for tag, x in inputs.items() if tag.endswith((".qkv", ".fi"))}
    m.graph.output.extend(helper.make_tensor_value_info(x, TensorProto.FLOAT, None) for x in inputs.values())
    with tempfile.TemporaryDirectory() as d:
        path = os.path.join(d, "model.onnx")
        with open(path, "wb") as f:
            f.write(m.SerializeToString())
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    amax = {tag: np.zeros(b.hidden, np.float32) for tag in inputs}
    with open(sys.argv[2]) as f:
        texts = json.load(f)
    for ids in texts:
        outs = session.run(list(inputs.values()), {"input_ids": np.array([[b.bos] + ids[:510] + [b.eos]], np.int64)})
        for tag, v in zip(inputs, outs):
            amax[tag] = np.maximum(amax[tag], np.abs(v).max(0))
    np.savez_compressed(sys.argv[3], **amax)


if __name__ == "__main__":
    main()
