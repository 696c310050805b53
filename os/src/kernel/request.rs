//! Netlink requests. Many are sent in order without waiting, and then all answers are awaited.

use super::{Kernel, KernelError};
use fault_points::fault;
use futures_util::{Stream, StreamExt};
use nix::errno::Errno;
use rtnetlink::{
    packet_core::{
        ErrorMessage, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE,
        NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
    },
    packet_route::RouteNetlinkMessage,
};

/// Maximum number of pending requests. Their answers, about 1 KiB each, must fit into the socket's receive
/// buffer (208 KiB by default). The kernel drops answers that do not fit, and then a request would wait for ever.
const MAX_PENDING: usize = 64;

/// One change, its description for errors, and the errors that count as success.
pub(super) struct Request {
    doing: String,
    message: RouteNetlinkMessage,
    flags: u16,
    forgiven: &'static [Errno],
}

impl Request {
    fn new(doing: impl Into<String>, message: RouteNetlinkMessage, flags: u16) -> Self {
        let flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        Self {
            doing: doing.into(),
            message,
            flags,
            forgiven: &[],
        }
    }

    /// Creates an object that must not exist yet.
    pub(super) fn create(doing: impl Into<String>, message: RouteNetlinkMessage) -> Self {
        Self::new(doing, message, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Creates an object, or replaces the existing one.
    pub(super) fn replace(doing: impl Into<String>, message: RouteNetlinkMessage) -> Self {
        Self::new(doing, message, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Creates an object beside existing ones with the same key, such as a route with the same destination.
    pub(super) fn append(doing: impl Into<String>, message: RouteNetlinkMessage) -> Self {
        Self::new(doing, message, NLM_F_CREATE | NLM_F_APPEND)
    }

    /// Changes or deletes an existing object.
    pub(super) fn change(doing: impl Into<String>, message: RouteNetlinkMessage) -> Self {
        Self::new(doing, message, 0)
    }

    /// Treats these errors as success.
    pub(super) fn forgive(self, forgiven: &'static [Errno]) -> Self {
        Self { forgiven, ..self }
    }
}

impl Kernel {
    /// Makes one change.
    pub(super) async fn execute(&self, request: Request) -> Result<(), KernelError> {
        self.execute_all([request]).await
    }

    /// Makes changes in order, without waiting between them. A failure does not prevent the others; the first
    /// failure is returned.
    pub(super) async fn execute_all(
        &self,
        requests: impl IntoIterator<Item = Request>,
    ) -> Result<(), KernelError> {
        let pending = if fault_points::is_armed() {
            1
        } else {
            MAX_PENDING
        };
        let mut first = Ok(());
        let mut requests = requests.into_iter().peekable();
        while requests.peek().is_some() {
            first = first.and(self.execute_batch(requests.by_ref().take(pending)).await);
        }
        first
    }

    async fn execute_batch(
        &self,
        requests: impl Iterator<Item = Request>,
    ) -> Result<(), KernelError> {
        let mut netlink = self.netlink.clone();
        let mut first = Ok(());
        let mut pending = Vec::new();
        for Request {
            doing,
            message,
            flags,
            forgiven,
        } in requests
        {
            let mut message = NetlinkMessage::from(message);
            message.header.flags = flags;
            match netlink.request(message) {
                Ok(answers) => pending.push((doing, forgiven, answers)),
                Err(_) => first = first.and(Err(KernelError::ConnectionClosed { doing })),
            }
        }
        for (doing, forgiven, answers) in pending {
            first = first.and(wait_for_acknowledgement(doing, forgiven, answers).await);
        }
        first
    }

    /// Requests one object; returns `None` if the kernel answers with one of these errors.
    pub(super) async fn find(
        &self,
        doing: &str,
        message: RouteNetlinkMessage,
        absent: &[Errno],
    ) -> Result<Option<RouteNetlinkMessage>, KernelError> {
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST;
        let mut netlink = self.netlink.clone();
        let mut answers = netlink
            .request(message)
            .map_err(|_| KernelError::ConnectionClosed {
                doing: doing.into(),
            })?;
        let mut found = None;
        while let Some(answer) = answers.next().await {
            match answer.payload {
                NetlinkPayload::InnerMessage(object) => found = Some(object),
                NetlinkPayload::Error(error) if !absent.contains(&errno(&error)) => {
                    return Err(KernelError::refused(doing)(error.to_io()));
                }
                _ => {}
            }
        }
        Ok(found)
    }

    /// Requests a list, and calls `each` with each of its entries.
    pub(super) async fn dump(
        &self,
        doing: &str,
        message: RouteNetlinkMessage,
        mut each: impl FnMut(RouteNetlinkMessage),
    ) -> Result<(), KernelError> {
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let mut netlink = self.netlink.clone();
        let mut answers = netlink
            .request(message)
            .map_err(|_| KernelError::ConnectionClosed {
                doing: doing.into(),
            })?;
        while let Some(answer) = answers.next().await {
            match answer.payload {
                NetlinkPayload::InnerMessage(entry) => each(entry),
                NetlinkPayload::Error(error) if error.code.is_some() => {
                    return Err(KernelError::refused(doing)(error.to_io()));
                }
                NetlinkPayload::Overrun(_) => {
                    return Err(KernelError::Malformed {
                        doing: doing.into(),
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Waits for the answer to a request. The stream of a successful request ends without an item, since
/// netlink-proto does not pass acknowledgements on.
async fn wait_for_acknowledgement(
    doing: String,
    forgiven: &[Errno],
    mut answers: impl Stream<Item = NetlinkMessage<RouteNetlinkMessage>> + Unpin,
) -> Result<(), KernelError> {
    while let Some(answer) = answers.next().await {
        if let NetlinkPayload::Error(error) = answer.payload {
            let errno = errno(&error);
            if errno != Errno::UnknownErrno && !forgiven.contains(&errno) {
                return Err(KernelError::refused(doing)(error.to_io()));
            }
        }
    }
    fault!("{doing}");
    Ok(())
}

/// Returns the error of an answer; `UnknownErrno`, which is 0, for an acknowledgement.
fn errno(error: &ErrorMessage) -> Errno {
    Errno::from_raw(error.raw_code().saturating_neg())
}
