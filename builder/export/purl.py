"""Package URLs: https://github.com/package-url/purl-spec."""

from __future__ import annotations

from urllib.parse import quote

from builder.export.installed import Package
from builder.oci.reference import DEFAULT_TAG, Reference
from builder.oci.spec import Platform


def image_purl(name: Reference, platform: Platform | None, *, kind: str = "docker") -> str:
    """`pkg:docker/NAME@TAG?digest=…&platform=…`, in the very form of BuildKit's `util/purl`: tools compare them."""
    tag = name.tag or ("" if name.digest else DEFAULT_TAG)
    path = "/".join(quote(part, safe="") for part in name.familiar_name.split("/"))
    qualifiers = [f"digest={name.digest}"] if name.digest else []
    qualifiers += [f"platform={quote(str(platform), safe='')}"] if platform else []
    return f"pkg:{kind}/{path}" + (f"@{tag}" if tag else "") + ("?" + "&".join(qualifiers) if qualifiers else "")


def package_purl(package: Package, distribution: str) -> str:
    """The URL of an installed package, with each type's own rules for names."""
    from packageurl import PackageURL

    qualifiers = {"arch": package.architecture, "epoch": package.epoch}
    if package.kind in ("deb", "apk", "rpm"):
        qualifiers["distro"] = distribution
    return PackageURL(
        package.kind, package.namespace, package.name, package.version, {k: v for k, v in qualifiers.items() if v}
    ).to_string()
