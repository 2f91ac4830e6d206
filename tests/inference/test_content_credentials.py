"""A signed file says who signed it and that trained algorithms made it; C2PA's reader checks it."""

import datetime
import json

import numpy as np
import pytest

from psrjax.errors import UserError
from psrjax.inference import content_credentials, output_files
from psrjax.inference.marks import Mark

c2pa = pytest.importorskip("c2pa", reason="needs C2PA: pip install 'psrjax[c2pa]'")
pytest.importorskip("cryptography", reason="needs the extra c2pa, which brings it")

from cryptography import x509  # noqa: E402
from cryptography.hazmat.primitives import hashes, serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID  # noqa: E402

FRAMES = np.random.default_rng(0).integers(0, 256, (3, 32, 48, 3), np.uint8)
TIMES = np.arange(3) / 25
SIGNED = list(content_credentials.SUFFIXES)


def certificate(name, key, issuer, issuers_key, *, issues):
    def named(text):
        parts = ((NameOID.COMMON_NAME, text), (NameOID.ORGANIZATION_NAME, "tests"))
        return x509.Name([x509.NameAttribute(kind, value) for kind, value in parts])

    begin = datetime.datetime(2026, 1, 1)
    usage = (not issues, *[False] * 4, issues, issues, False, False)
    made = x509.CertificateBuilder(
        named(issuer), named(name), key.public_key(), x509.random_serial_number(), begin,
        begin + datetime.timedelta(days=36500),
    )  # fmt: skip
    made = made.add_extension(x509.BasicConstraints(issues, None), True)
    made = made.add_extension(x509.KeyUsage(*usage), True)
    if not issues:
        purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        made = made.add_extension(purpose, False)
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    above = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuers_key.public_key())
    made = made.add_extension(own, False).add_extension(above, False)
    return made.sign(issuers_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="module")
def signer(tmp_path_factory):
    """A certificate that a made-up authority issued, and its key."""
    folder = tmp_path_factory.mktemp("signer")
    above, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    chain = certificate("signer", own, "authority", above, issues=False)
    chain += certificate("authority", above, "authority", above, issues=True)
    (folder / "chain.pem").write_bytes(chain)
    plain = serialization.NoEncryption()
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (folder / "key.pem").write_bytes(own.private_bytes(*form))
    return f"{folder}/chain.pem,{folder}/key.pem"


@pytest.mark.parametrize("suffix", SIGNED)
def test_a_signed_file_is_valid_and_says_that_trained_algorithms_made_it(suffix, signer, tmp_path):
    path = tmp_path / f"a{suffix}"
    output_files.write(path, FRAMES, times=TIMES, mark=Mark("hpt", signer=signer))
    with c2pa.Reader(str(path)) as reader:
        found = json.loads(reader.json())
    assert found["validation_state"] == "Valid"
    # Nobody trusts this authority; anything else would be damage.
    assert [each["code"] for each in found["validation_status"]] == ["signingCredential.untrusted"]
    manifest = found["manifests"][found["active_manifest"]]
    assert manifest["title"].startswith("synthesized by psrjax") and "hpt" in manifest["title"]
    assert manifest["signature_info"]["common_name"] == "signer"
    assert "trainedAlgorithmicMedia" in json.dumps(manifest["assertions"])
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    (tmp_path / f"changed{suffix}").write_bytes(data)
    try:
        with c2pa.Reader(str(tmp_path / f"changed{suffix}")) as reader:
            assert json.loads(reader.json())["validation_state"] != "Valid"
    except c2pa.C2paError:  # what was changed is the manifest itself
        pass


def test_what_cannot_be_signed_is_refused(signer, tmp_path):
    with pytest.raises(UserError, match=r"a\.mkv: signatures .C2PA. go into \.mp4"):
        content_credentials.check("a.mkv", signer)
    with pytest.raises(UserError, match="give CERTIFICATES.pem,KEY.pem"):
        content_credentials.check("a.mp4", "one.pem")
    with pytest.raises(UserError, match="none.pem: no such file"):
        content_credentials.check("a.mp4", "none.pem,none.pem")
    (tmp_path / "wrong.pem").write_text("no certificate")
    wrong = f"{tmp_path}/wrong.pem,{tmp_path}/wrong.pem"
    with pytest.raises(UserError, match=r"wrong\.pem: does not sign"):
        output_files.write(tmp_path / "a.mp4", FRAMES, times=TIMES, mark=Mark(signer=wrong))
