#!/bin/sh
# What nobody runs in an image: the distributions' own tests, headers for compilers that aren't there, and pip.
# Bytecode stays: the root is read-only, so each of Ray's processes would compile anew what it imports.
set -eu
cd "$1"/lib/python3*/site-packages
before=$(du -sm . | cut -f1)
for name in matplotlib numpy pandas pyarrow ray scipy sympy networkx; do
    [ ! -d "$name" ] || find "$name" -type d -name tests -prune -exec rm -rf {} +
done
# Of pycryptodome's tests because they hold private keys; of torch's programs one is needed.
rm -rf Crypto/SelfTest torch/include nvidia/*/include ray/jars
find torch/bin -type f ! -name torch_shm_manager -delete
"$1"/bin/python -m pip uninstall --quiet --yes setuptools pip || "$1"/bin/python -m pip uninstall --quiet --yes pip
echo "pruned: $before MB -> $(du -sm . | cut -f1) MB"
