//! Netlink requests: sent in order without waiting, then all answers awaited.

use super::{Kernel, KernelError};
use futures_util::{Stream, StreamExt};
use nix::errno::Errno;
use rtnetlink::{
    packet_core::{
        NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE,
        NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
    },
    packet_route::RouteNetlinkMessage,
};

/// Largest number of pending requests. Their answers must fit into the socket's buffer (208 KiB as
/// a rule, about 1 KiB each); the kernel drops what does not fit, and the request would wait for
/// ever.
const AT_ONCE: usize = 64;

/// One change, its purpose, and the errors that mean that it was already done.
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

    /// Makes a thing that must not be there yet.
    pub(super) fn create(doing: impl Into<String>, message: RouteNetlinkMessage) -> Self {
        Self::new(doing, message, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Makes a thing, or makes it like this.
    pub(super) fn replace(doing: impl Into<String>, message: RouteNetlinkMessage) -> Self {
        Self::new(doing, message, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Makes a thing beside others that look alike.
    pub(super) fn append(doing: impl Into<String>, message: RouteNetlinkMessage) -> Self {
        Self::new(doing, message, NLM_F_CREATE | NLM_F_APPEND)
    }

    /// Changes or deletes a thing that is there.
    pub(super) fn change(doing: impl Into<String>, message: RouteNetlinkMessage) -> Self {
        Self::new(doing, message, 0)
    }

    /// Treats these errors as success.
    pub(super) fn forgive(self, forgiven: &'static [Errno]) -> Self {
        Self { forgiven, ..self }
    }
}

impl Kernel {
    /// Carries out one change.
    pub(super) async fn ask(&self, request: Request) -> Result<(), KernelError> {
        self.ask_all([request]).await
    }

    /// Carries out changes in order, without waiting between them; returns the first failure after
    /// all were tried.
    pub(super) async fn ask_all(
        &self,
        requests: impl IntoIterator<Item = Request>,
    ) -> Result<(), KernelError> {
        let mut first = Ok(());
        let mut requests = requests.into_iter().peekable();
        while requests.peek().is_some() {
            first = first.and(self.ask_some(requests.by_ref().take(AT_ONCE)).await);
        }
        first
    }

    async fn ask_some(&self, requests: impl Iterator<Item = Request>) -> Result<(), KernelError> {
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
            first = first.and(acknowledged(doing, forgiven, answers).await);
        }
        first
    }

    /// Asks for a list and calls `each` with every entry.
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

/// A success comes as the end of the stream: netlink-proto keeps the acknowledgement for itself.
async fn acknowledged(
    doing: String,
    forgiven: &[Errno],
    mut answers: impl Stream<Item = NetlinkMessage<RouteNetlinkMessage>> + Unpin,
) -> Result<(), KernelError> {
    while let Some(answer) = answers.next().await {
        if let NetlinkPayload::Error(error) = answer.payload {
            let code = error.raw_code().saturating_neg();
            if code != 0 && !forgiven.contains(&Errno::from_raw(code)) {
                return Err(KernelError::refused(doing)(error.to_io()));
            }
        }
    }
    Ok(())
}
