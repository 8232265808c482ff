# SPDX-License-Identifier: Apache-2.0
"""Builds the wheel and the source archive of the module with nothing but Python's own library.

pip calls these functions (PEP 517).  A package of pure Python needs no more, and so it can be installed where there is
neither a network nor setuptools.
"""
import base64
import hashlib
import io
import pathlib
import re
import tarfile
import zipfile

_HERE = pathlib.Path(__file__).resolve().parent
_SOURCES = ["pyproject.toml", "build_backend.py", "icecore/__init__.py"]


def _field(name):
    text = (_HERE / "pyproject.toml").read_text()
    return re.search(rf'^{name} = "(.*)"$', text, re.MULTILINE)[1]


def _stem():
    return f"{_field('name')}-{_field('version')}"


def _metadata():
    return (
        f"Metadata-Version: 2.1\nName: {_field('name')}\nVersion: {_field('version')}\n"
        f"Summary: {_field('description')}\nLicense: Apache-2.0\nRequires-Python: {_field('requires-python')}\n"
    )


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    info = f"{_stem()}.dist-info"
    files = {
        "icecore/__init__.py": (_HERE / "icecore/__init__.py").read_bytes(),
        f"{info}/METADATA": _metadata().encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: icecore\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for name, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={digest},{len(content)}\n"
    files[f"{info}/RECORD"] = (record + f"{info}/RECORD,,\n").encode()

    wheel = f"{_stem()}-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(wheel_directory) / wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))  # the same archive each time
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return wheel


def build_sdist(sdist_directory, config_settings=None):
    sdist = f"{_stem()}.tar.gz"
    with tarfile.open(pathlib.Path(sdist_directory) / sdist, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        for name in _SOURCES:
            archive.add(_HERE / name, f"{_stem()}/{name}")
        content = _metadata().encode()
        entry = tarfile.TarInfo(f"{_stem()}/PKG-INFO")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return sdist
