"""A GGUF file with the same values in F32: what its quantized weights stand for, with nothing left to quantize.

    pip install gguf==0.19.0 numpy==2.4.6
    python tests/golden/make/dequantize.py MODEL.gguf MODEL.f32.gguf

llama.cpp rounds activations to 8 bits before it multiplies them with quantized weights. Run on the file made here it
multiplies F32 by F32, and its logits are those of the quantized *weights* alone.
"""

import argparse

import numpy as np
from gguf import GGUFReader, GGUFWriter, dequantize

F32_FILE_TYPE = 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("target")
    args = parser.parse_args()

    reader = GGUFReader(args.source)
    writer = GGUFWriter(args.target, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        value = F32_FILE_TYPE if field.name == "general.file_type" else field.contents()
        sub_type = field.types[1] if len(field.types) > 1 else None
        writer.add_key_value(field.name, value, field.types[0], sub_type=sub_type)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
