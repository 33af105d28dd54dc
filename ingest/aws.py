"""Where clients of AWS are made, and what their failures mean: the only importer of boto3.

Owns time-outs, retries and the reading of errors. Credentials, Region and addresses are found as boto3 finds them
(environment, profile, role; `AWS_ENDPOINT_URL_SQS` and its like), so nothing of them is a setting of ours.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum
from typing import Any

from store.errors import SourceError

_SIGNED_S = 300  # for as long as a connection may take; AWS's own clients say a day


class Trouble(Enum):
    """What a failed call asks of us."""

    AWAY = "away"  # the network, or AWS itself: try again, ever more slowly
    THROTTLED = "throttled"  # try again, with fewer calls
    CREDENTIALS = "credentials"  # expired or missing: somebody has to act, or the role will renew them
    DENIED = "denied"  # a permission is missing
    GONE = "gone"  # what was asked of is not there
    REFUSED = "refused"  # the question itself is wrong: asking again does not help
    OFF = "off"  # what was asked of is switched off in the account
    NOT_READY = "not-ready"  # it was just switched on, and is being built


_EXPIRED = {
    "ExpiredToken",
    "ExpiredTokenException",
    "RequestExpired",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
    "InvalidAccessKeyId",
    "AuthFailure",
}
_DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedException", "AuthorizationErrorException"}
_THROTTLED = {
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "RequestThrottled",
    "TooManyRequestsException",
    "ProvisionedThroughputExceededException",
    "LimitExceededException",
    "KmsThrottled",
    "SlowDown",
}
_NOT_READY = {"IndexNotReadyException"}
_GONE = {
    "ResourceNotFoundException",
    "QueueDoesNotExist",
    "AWS.SimpleQueueService.NonExistentQueue",
    "AWS.SimpleQueueService.QueueDeletedRecently",
    "NoSuchBucket",
    "NoSuchKey",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """A call that failed: what it asks of us, AWS's name for it, and what a person should read."""

    trouble: Trouble
    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Whose AWS it is: a profile and a Region, each as boto3 finds it where it is not said."""

    profile: str | None = None
    region: str | None = None

    def client(self, service: str, *, connections: int = 10, attempts: int = 3, read_s: float = 30) -> Any:
        """Make a client; it may be used by several threads.

        `attempts`: how often a call is tried in all. `read_s`: how long an answer may take. Raises SourceError
        where the profile or the Region is missing.
        """
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError

        config = Config(
            connect_timeout=10,
            read_timeout=read_s,
            retries={"mode": "standard", "total_max_attempts": attempts},
            max_pool_connections=connections,
            user_agent_extra="thingline",
        )
        try:
            return self._session().client(service, config=config)
        except (BotoCoreError, ValueError) as error:
            raise SourceError(f"No client for AWS {service}: {failure_of(error).message}") from error

    def signer(self, service: str, region: str | None = None) -> Signer:
        """Make what signs addresses, with credentials as they are renewed. Raises SourceError as `client`."""
        try:
            session = self._session()
        except errors() as error:
            raise SourceError(f"Nothing can be signed: {failure_of(error).message}.") from error
        region = region or session.region_name
        if region is None:
            raise SourceError("Nothing can be signed: no Region; set AWS_REGION or the profile's region.")
        return Signer(session, service, region)

    def _session(self) -> Any:
        import boto3

        # boto3 itself looks at AWS_DEFAULT_REGION only, the AWS CLI at this first.
        region = self.region or os.environ.get("AWS_REGION") or None
        return boto3.session.Session(profile_name=self.profile, region_name=region)


class Signer:
    """Signs addresses for one service by SigV4, each time with the credentials that are good then."""

    def __init__(self, session: Any, service: str, region: str) -> None:
        self._session = session
        self._service = service
        self._region = region

    def signed_target(self, url: str) -> str:
        """Give path and query of a GET of `url`, signed for the next minutes; a secret. Raises SourceError.

        The session token is put in after signing, as IoT's gateway wants it (AWS: "MQTT over the WebSocket protocol"
        in the developer guide of IoT Core); others want it signed too.
        """
        from urllib.parse import quote, urlsplit

        from botocore.auth import SigV4QueryAuth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials
        from botocore.exceptions import NoCredentialsError

        try:
            found = self._session.get_credentials()
            if found is None:
                raise NoCredentialsError
            held = found.get_frozen_credentials()
        except errors() as error:  # a role that is renewed asks AWS
            raise SourceError(f"Nothing can be signed: {failure_of(error).message}.") from error
        request = AWSRequest(method="GET", url=url)
        own = Credentials(held.access_key, held.secret_key)
        SigV4QueryAuth(own, self._service, self._region, expires=_SIGNED_S).add_auth(request)
        parts = urlsplit(request.url)
        token = "" if held.token is None else f"&X-Amz-Security-Token={quote(held.token, safe='')}"
        return f"{parts.path}?{parts.query}{token}"


def errors() -> tuple[type[Exception], ...]:
    """Name what boto3 raises where a call fails, an answer that cannot be read included; all else is a bug of ours."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    return BotoCoreError, ClientError, ResponseParserError


def failure_of(error: Exception) -> Failure:
    """Read what boto3 raised. Never raises; of secrets the message holds none, for AWS's messages hold none."""
    from botocore import exceptions as known

    text = " ".join(str(error).split()).rstrip(".")
    if isinstance(error, known.ClientError):
        said = error.response.get("Error", {})
        code = str(said.get("Code", "Unknown"))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return Failure(
            _trouble(code, status), code, f"{code}: {str(said.get('Message') or text).rstrip('.')}"
        )
    name = type(error).__name__
    if isinstance(
        error, (known.NoCredentialsError, known.PartialCredentialsError, known.CredentialRetrievalError)
    ):
        advice = "give AWS credentials as for the AWS CLI (`aws sts get-caller-identity` tests them)"
        return Failure(Trouble.CREDENTIALS, name, f"{text}; {advice}")
    if isinstance(
        error, (known.UnauthorizedSSOTokenError, known.SSOTokenLoadError, known.TokenRetrievalError)
    ):
        return Failure(Trouble.CREDENTIALS, name, f"{text}; run `aws sso login`")
    if isinstance(error, known.NoRegionError):
        return Failure(Trouble.REFUSED, name, "no Region; set AWS_REGION or the profile's region")
    if isinstance(error, (known.ParamValidationError, known.ProfileNotFound)):
        return Failure(Trouble.REFUSED, name, text)
    return Failure(Trouble.AWAY, name, text)


def _trouble(code: str, status: int) -> Trouble:
    for codes, trouble in (
        (_THROTTLED, Trouble.THROTTLED),
        (_EXPIRED, Trouble.CREDENTIALS),
        (_DENIED, Trouble.DENIED),
        (_GONE, Trouble.GONE),
        (_NOT_READY, Trouble.NOT_READY),
    ):
        if code in codes:
            return trouble
    if status >= 500 or status == 0:
        return Trouble.AWAY
    return Trouble.THROTTLED if status == 429 else Trouble.REFUSED
