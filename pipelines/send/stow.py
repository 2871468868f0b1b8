"""STOW-RS, the Store transaction of DICOMweb (PS3.18, section 10.5), through dicomweb-client.

User name and password are taken from ~/.netrc, and a certificate authority of one's own from REQUESTS_CA_BUNDLE, as
requests does: neither belongs on a command line.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from brgm_med.errors import UsageError
from brgm_med.pipelines.console import shown
from brgm_med.pipelines.send.protocol import Answer, Answers, Instance, UnreachableError, answer, seconds_for
from brgm_med.processes import within

if TYPE_CHECKING:
    from pydicom import Dataset

TIMEOUT = (10, 120)
"""Seconds for a connection, and between two bytes of an answer."""
LARGEST_ANSWER = 1 << 20
"""Bytes: an answer about one instance has some hundred."""
WHOLE = 1 << 60
"""The size of a request's chunks: chunked transfer is refused by some archives."""
TEMPORARY = (408, 425, 429, 500, 502, 503, 504)
FOR_ALL = (401, 403, 404, 405, 407)


def check(url: str) -> str:
    """`url`, if it can be one of STOW-RS. Raises UsageError."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise UsageError(f"--to: is no URL ({error})") from error
    if parts.username is not None:
        raise UsageError("--to: the URL holds a user name; put that and the password into ~/.netrc")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"--to {url}: must be http(s)://host/.../studies, or AET@host:port")
    if not parts.path.rstrip("/").endswith("/studies") or parts.query or parts.fragment:
        raise UsageError(f"--to {url}: must end in /studies, the Store resource of DICOMweb")
    return url.rstrip("/")


def send(url: str, instances: Sequence[Instance]) -> Answers:
    """Store instances, one in each request, so that each has an answer of its own. Raises UnreachableError."""
    from dicomweb_client.api import DICOMwebClient
    from requests import HTTPError, RequestException, Timeout
    from requests.exceptions import ConnectionError, SSLError

    json = {"Accept": "application/dicom+json", "Accept-Encoding": "identity"}
    client = DICOMwebClient(url.removesuffix("/studies"), headers=json, timeout=TIMEOUT, chunk_size=WHOLE)  # type: ignore[arg-type]
    client.set_http_retry_params(retry=False)
    for scheme in ("http://", "https://"):
        client._session.mount(scheme, _bounded_adapter())
    host = urlsplit(url).netloc
    for instance in instances:
        try:
            # Not `store_instances`, which decodes a data set and writes it anew: without group lengths, for example.
            content, seconds = [instance.path.read_bytes()], seconds_for(instance, sum(TIMEOUT))
            post = partial(client._http_post_multipart_application_dicom, url, content)
            yield instance, _meaning(within(seconds, post), instance.uid)
        except HTTPError as error:
            yield instance, _refusal(error, instance.uid)
        except TimeoutError as error:
            raise UnreachableError(f"because {host} took longer than {seconds:.0f} s", later=True) from error
        except SSLError as error:
            raise UnreachableError("because the archive's certificate is not trusted", later=False) from error
        except (ConnectionError, Timeout) as error:
            raise UnreachableError(f"for want of a connection to {urlsplit(url).netloc}", later=True) from error
        except _UNREADABLE:
            yield instance, Answer(False, "unconfirmed (the archive's answer cannot be read)")
        except RequestException as error:
            raise UnreachableError(f"because the request failed ({type(error).__name__})", later=False) from error
        except OSError:
            yield instance, Answer(False, "could not be read", later=True)


_UNREADABLE = (ArithmeticError, AttributeError, LookupError, RecursionError, SyntaxError, TypeError, ValueError)
"""Errors of what reads an answer that is no Store Instances Response (requests' JSONDecodeError is a ValueError)."""


def _bounded_adapter() -> Any:
    """A transport of requests that follows no redirection and reads no more of an answer than `LARGEST_ANSWER`.

    It raises UnreachableError for a redirection, and ValueError for a larger answer.
    """
    from requests.adapters import HTTPAdapter

    class Bounded(HTTPAdapter):
        def send(self, request: Any, stream: bool = False, **options: Any) -> Any:  # type: ignore[override]
            response = super().send(request, stream=True, **options)
            if 300 <= response.status_code < 400:
                response.close()
                to = urlsplit(response.headers.get("Location", "")).netloc
                text = f"because the archive redirects to {shown(to or 'elsewhere')} (HTTP {response.status_code})"
                raise UnreachableError(f"{text}; give that URL if it is the archive", later=False)
            content = response.raw.read(LARGEST_ANSWER + 1, decode_content=False)
            if len(content) > LARGEST_ANSWER:
                response.close()
                raise ValueError("the answer is too large")
            response._content, response._content_consumed = content, True
            response.raw.release_conn()
            return response

    return Bounded()


def _meaning(response: Dataset, uid: str) -> Answer:
    """Answer in a Store Instances Response (PS3.18, table 10.5.3-1) about the one instance that was sent."""
    for failed in response.get("FailedSOPSequence") or []:
        if failed.get("ReferencedSOPInstanceUID", uid) == uid:
            return answer(int(failed.get("FailureReason") or 0x0110))
    for stored in response.get("ReferencedSOPSequence") or []:
        if stored.get("ReferencedSOPInstanceUID") == uid:
            return answer(int(stored.get("WarningReason") or 0))
    return Answer(False, "unconfirmed (the archive's answer does not name it)")


def _refusal(error: Exception, uid: str) -> Answer:
    """Answer in a response 4xx or 5xx: 409 holds a Store Instances Response too. Raises UnreachableError for all."""
    from pydicom import Dataset

    response = error.response  # type: ignore[attr-defined]
    status = response.status_code
    if status in FOR_ALL:
        raise UnreachableError(f"because the archive answered HTTP {status} ({shown(response.reason)})", later=False)
    try:
        meaning = _meaning(Dataset.from_json(response.json()), uid)
    except Exception:  # no such body
        meaning = None
    if meaning is not None and not meaning.stored and "0x" in meaning.text:
        return meaning
    return Answer(False, f"refused (HTTP {status} {shown(response.reason)})", later=status in TEMPORARY)
