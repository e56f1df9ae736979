#!/usr/bin/env bash
# The symbols of the test vectors on another architecture: AArch64, emulated, with its own ONNX Runtime and NumPy.
#
#     benchmarks/aarch64.sh [VECTOR …]
#
# For Debian on x86-64, as root (it adds the architecture while it fetches Debian's Python for it); needs qemu-user.
# samples/python/embed.py decodes, which is not what wrote the vectors.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'dpkg --remove-architecture arm64 || true; rm -rf "$work"' EXIT

dpkg --add-architecture arm64
apt-get update -qq
debian="python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libc6 libexpat1 zlib1g libstdc++6 libgcc-s1 libffi8 libssl3
  libbz2-1.0 liblzma5 libsqlite3-0 libuuid1"
(cd "$work" && apt-get download -qq $(printf '%s:arm64 ' $debian) 2>/dev/null && for d in *.deb; do dpkg -x "$d" root; done)
python3 -m pip download -q --only-binary :all: --no-deps --python-version 3.11 --platform manylinux_2_28_aarch64 \
  --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 -d "$work/wheels" \
  numpy onnxruntime==1.24.1 flatbuffers protobuf packaging # ONNX Runtime 1.32 does not start in this emulator
for w in "$work"/wheels/*.whl; do python3 -m zipfile -e "$w" "$work/site"; done

qemu-aarch64 -cpu cortex-a57 -L "$work/root" "$work/root/usr/bin/python3.11" - "$work/site" "$@" <<'PYTHON'
import hashlib, json, platform, sys
from pathlib import Path

sys.path[:0] = [sys.argv[1], "samples/python"]
from embed import Bundle, decode_with_symbols

vectors = Path("tests/vectors")
bundles = {name: Bundle(Path(f"eocodec/models/{name}.eocm")) for name in ("photo", "face64")}
wanted = sys.argv[2:] or None
same = other = 0
for v in json.loads((vectors / "vectors.json").read_text()):
    if v["name"].endswith(("alpha", "packed", "wide")) or (wanted and v["name"] not in wanted):
        continue  # these need zstandard, which is not fetched; wide takes minutes
    _, symbols = decode_with_symbols((vectors / f"{v['name']}.eoc").read_bytes(), bundles[v["model"]])
    equal = hashlib.sha256(symbols.astype("<i4").tobytes()).hexdigest() == v["sha256"]
    same, other = same + equal, other + (not equal)
    print(f"{v['name']:18} {'same' if equal else 'OTHER'}", flush=True)
print(f"{platform.machine()}: {same} the same, {other} other")
sys.exit(other > 0)
PYTHON
