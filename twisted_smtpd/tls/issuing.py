"""Issues certificates that clients accept which verify strictly: of an authority, and of servers."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["IssuingKey", "Validity", "common_name", "issue_authority", "issue_server"]

#: The kinds of keys that are made here.
IssuingKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
#: From when to when a certificate is valid.
Validity = tuple[datetime.datetime, datetime.datetime]


def common_name(text: str) -> x509.Name:
    """A name that has nothing but a common name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def issue_authority(name: str, key: IssuingKey, validity: Validity) -> x509.Certificate:
    """The certificate of an authority for servers.

    :param name: its common name.
    :param key: its key.
    :param validity: from when to when it is valid.
    """
    subject = common_name(name)
    return (
        _begun(subject, subject, key, key, validity)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True), critical=True)
        .sign(key, hashes.SHA256())
    )


def issue_server(
    names: Sequence[x509.GeneralName],
    key: IssuingKey,
    subject: x509.Name,
    issuer: x509.Name,
    issuer_key: IssuingKey,
    validity: Validity,
) -> x509.Certificate:
    """The certificate of a server.

    :param names: its host names and addresses.
    :param key: its key.
    :param subject: its name, which is the issuer's if it is self-signed.
    :param issuer: the name of the authority.
    :param issuer_key: the authority's key.
    :param validity: from when to when it is valid.
    """
    return (
        _begun(subject, issuer, key, issuer_key, validity)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        # Old clients, for which an RSA key is wanted, encrypt with it (RFC 5246 section 7.4.7.1).
        .add_extension(
            _usage(digital_signature=True, key_encipherment=isinstance(key, rsa.RSAPrivateKey)), critical=True
        )
        .sign(issuer_key, hashes.SHA256())
    )


def _begun(
    subject: x509.Name, issuer: x509.Name, key: IssuingKey, issuer_key: IssuingKey, validity: Validity
) -> x509.CertificateBuilder:
    key_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    issuer_id = x509.SubjectKeyIdentifier.from_public_key(issuer_key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(validity[0])
        .not_valid_after(validity[1])
        # Clients that verify strictly require these (RFC 5280 section 4.2.1), for example Python from 3.13 on.
        .add_extension(key_id, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_id), critical=False)
    )


def _usage(
    digital_signature: bool = False, key_encipherment: bool = False, key_cert_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=key_encipherment,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
