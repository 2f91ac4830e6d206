"""Content credentials (C2PA): a signed statement inside a file that it is synthesized.

Signing is offline: no time stamp is asked for. Needs the extra `c2pa`.
"""

import json
import os
from pathlib import Path

import psrjax
from psrjax import io
from psrjax.errors import UserError

SUFFIXES = {
    ".mp4": "video/mp4",
    ".mov": "video/quicktime",
    ".avi": "video/avi",
    ".gif": "image/gif",
    ".webp": "image/webp",
}
_SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


def check(path: str | os.PathLike, signer: str) -> None:
    """Refuses what could not be signed, before anything is computed.

    Args:
      path: the file to write.
      signer: "CERTIFICATES.pem,KEY.pem": the signer's certificate and those that issued it, and the
        key of it, on the curve P-256.

    Raises:
      UserError: for a name whose kind of file takes no signature, or a file that is not there.
      ModuleNotFoundError: without the extra `c2pa`.
    """
    import c2pa  # noqa: F401  (a thing of the extra)

    if Path(path).suffix.lower() not in SUFFIXES:
        raise UserError(f"{path}: signatures (C2PA) go into {', '.join(SUFFIXES)}")
    _read(signer)


def sign(path: str | os.PathLike, signer: str, *, title: str) -> None:
    """Puts a signed manifest into a file: made by psrjax, by trained algorithms.

    Raises:
      UserError: as `check`, or if the certificates and the key do not sign.
    """
    import c2pa

    path, (certificates, key) = Path(path), _read(signer)
    manifest = {
        "claim_generator_info": [{"name": "psrjax", "version": psrjax.__version__}],
        "title": title,
        "format": SUFFIXES[path.suffix.lower()],
        "assertions": [
            {
                "label": "c2pa.actions",
                "data": {"actions": [{"action": "c2pa.created", "digitalSourceType": _SOURCE}]},
            }
        ],
    }
    info = c2pa.C2paSignerInfo(alg=b"es256", sign_cert=certificates, private_key=key, ta_url=None)
    try:
        with (
            io.replacing(path) as signed,
            c2pa.Signer.from_info(info) as own,
            c2pa.Builder(json.dumps(manifest)) as builder,
        ):
            builder.sign_file(os.fspath(path), os.fspath(signed), own)
    except c2pa.C2paError as error:
        raise UserError(f"{signer}: does not sign {path} ({error})") from error


def _read(signer: str) -> tuple[bytes, bytes]:
    names = signer.split(",")
    if len(names) != 2:
        raise UserError(f"--c2pa={signer}: give CERTIFICATES.pem,KEY.pem")
    for name in names:
        if not Path(name).is_file():
            raise UserError(f"--c2pa: {name}: no such file")
    return Path(names[0]).read_bytes(), Path(names[1]).read_bytes()
