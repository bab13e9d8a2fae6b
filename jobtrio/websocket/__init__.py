"""The bridge: the same streams for clients outside the process, over WebSocket.

The public names, re-exported. It needs the extra ``jobtrio[websocket]``, and nothing of jobtrio needs it.
"""

try:
    from jobtrio.websocket.client import JobClient as JobClient
except ImportError as _exc:
    _exc.add_note("jobtrio.websocket needs an extra: pip install 'jobtrio[websocket]'")
    raise
from jobtrio._errors import call_by_public_names as _call_by_public_names
from jobtrio.websocket._client_errors import ServerRefusedError as ServerRefusedError
from jobtrio.websocket._client_errors import ServerUnavailableError as ServerUnavailableError
from jobtrio.websocket._client_errors import WrongEpochError as WrongEpochError
from jobtrio.websocket._client_job import RemoteJob as RemoteJob
from jobtrio.websocket._client_subscription import RemoteSubscription as RemoteSubscription
from jobtrio.websocket._codes import CloseCode as CloseCode
from jobtrio.websocket._codes import ErrorCode as ErrorCode
from jobtrio.websocket._gatekeeper import Action as Action
from jobtrio.websocket._gatekeeper import Authenticate as Authenticate
from jobtrio.websocket._gatekeeper import Authorize as Authorize
from jobtrio.websocket._gatekeeper import Handshake as Handshake
from jobtrio.websocket._limits import Limits as Limits
from jobtrio.websocket._tally import ServerStats as ServerStats
from jobtrio.websocket.client import open_client as open_client
from jobtrio.websocket.server import Server as Server
from jobtrio.websocket.server import serve as serve

__all__ = [
    "Action",
    "Authenticate",
    "Authorize",
    "CloseCode",
    "ErrorCode",
    "Handshake",
    "JobClient",
    "Limits",
    "RemoteJob",
    "RemoteSubscription",
    "Server",
    "ServerRefusedError",
    "ServerStats",
    "ServerUnavailableError",
    "WrongEpochError",
    "open_client",
    "serve",
]

_call_by_public_names(globals())
