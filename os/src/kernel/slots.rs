//! Creates slots, sets them up or down, and silences them for Babel.

use super::{Kernel, KernelError, bpf, request::Request, sysctl, tun::Tap};
use nix::{errno::Errno, net::if_::if_nametoindex};
use policies::names::{Prefix, Slot, Transport};
use rtnetlink::{
    LinkMacVlan, LinkUnspec, LinkVlan, RouteMessageBuilder,
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope},
        link::{LinkMessage, MacVlanMode},
        route::{RouteMessage, RouteProtocol, RouteType},
    },
};
use std::{
    net::{IpAddr, Ipv6Addr},
    ops::{Range, RangeInclusive},
};

/// MTU of every link of ours, bytes: with OpenVPN's and TLS's overhead it passes a path of 1500.
pub const MTU: u32 = 1400;

/// The highest VLAN number (IEEE 802.1Q: 4095 is reserved).
const LAST_VLAN: u16 = 4094;

/// `RT_TABLE_LOCAL` of linux/rtnetlink.h.
const TABLE_LOCAL: u32 = 255;

/// The kind of link that accepting slots are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptingKind {
    /// VLAN links of the kernel's 8021q.
    Vlan,
    /// Macvlans under two BPF programs that take tags off and put them on.
    Macvlan,
}

/// A link under construction.
struct Link {
    name: String,
    index: u32,
    mac: [u8; 6],
}

impl Kernel {
    /// What accepting slots can be made of here; `None` where tunnels can only be dialled.
    ///
    /// Found by trying on a link that vanishes again, once; then remembered.
    pub async fn accepting_kind(&self) -> Option<AcceptingKind> {
        if let Some(known) = self.state().accepting {
            return known;
        }
        let found = match self.try_kinds().await {
            Ok(kind) => Some(kind),
            Err(error) => {
                let error = wire::errors::Chain(&error).to_string();
                tracing::warn!(error, "tunnels cannot be accepted here");
                None
            }
        };
        self.state().accepting = Some(found);
        found
    }

    async fn try_kinds(&self) -> Result<AcceptingKind, KernelError> {
        // No name of a slot, and not persistent: whatever happens, it goes with us.
        let name = format!("wrnp{}", std::process::id());
        let _tap = Tap::make(&name)?;
        let index = index_of(&name)?;
        let below = format!("{name}.2");
        let vlan = LinkVlan::new(&below, index, 2).build();
        let Err(no_vlan) = self.ask(make_link(&below, vlan)).await else {
            return Ok(AcceptingKind::Vlan);
        };
        tracing::debug!(error = %wire::errors::Chain(&no_vlan), "no VLAN links");
        bpf::attach(&name, index)?;
        let macvlan = LinkMacVlan::new(&below, index, MacVlanMode::Private).build();
        self.ask(make_link(&below, macvlan)).await?;
        Ok(AcceptingKind::Macvlan)
    }

    /// Makes the dialling slots of these numbers for the node `me`, to be opened by that user, up.
    ///
    /// # Errors
    ///
    /// A link of that name exists, or the kernel refuses; what was made stays for [`Self::sweep`].
    pub async fn make_dialling_slots(
        &self,
        numbers: Range<u16>,
        me: Prefix,
        owner_uid: u32,
    ) -> Result<Vec<Slot>, KernelError> {
        let slots: Vec<Slot> = numbers.map(Slot::Dialling).collect();
        let mac = wire::overlay::dialling_mac(me);
        let named = slots.iter().map(|slot| (slot.to_string(), mac)).collect();
        let links = self.make_taps(named, owner_uid).await?;
        let mut requests = Vec::new();
        for (slot, link) in slots.iter().zip(&links) {
            sysctl::quieten(&link.name)?;
            requests.push(give_link_local(&link.name, link.index, me));
            requests.push(set_link_up(&link.name, link.index));
            self.state().slots.insert(*slot, link.index);
        }
        self.ask_all(requests).await?;
        Ok(slots)
    }

    /// Makes one dialling slot; see [`Self::make_dialling_slots`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn make_dialling_slot(
        &self,
        number: u16,
        me: Prefix,
        owner_uid: u32,
    ) -> Result<Slot, KernelError> {
        self.make_dialling_slots(number..number.saturating_add(1), me, owner_uid)
            .await?;
        Ok(Slot::Dialling(number))
    }

    /// Makes the TAP of our server of that transport, up; it carries accepting slots and is mute
    /// itself. Returns its name.
    ///
    /// # Errors
    ///
    /// [`KernelError::CannotAccept`] where no accepting slots can be made; a link of that name
    /// exists; the kernel refuses.
    pub async fn make_server_tap(
        &self,
        transport: Transport,
        owner_uid: u32,
    ) -> Result<&'static str, KernelError> {
        let kind = self
            .accepting_kind()
            .await
            .ok_or(KernelError::CannotAccept)?;
        let name = server_name(transport);
        let mac = match transport {
            Transport::Udp => [0x02, 0x57, 0x52, 0x54, 0, 0],
            Transport::Tcp => [0x02, 0x57, 0x52, 0x54, 0, 1],
        };
        for link in self
            .make_taps(vec![(name.to_owned(), mac)], owner_uid)
            .await?
        {
            sysctl::quieten(name)?;
            sysctl::mute(name)?;
            match kind {
                AcceptingKind::Vlan => {}
                AcceptingKind::Macvlan => bpf::attach(name, link.index)?,
            }
            self.ask(set_link_up(name, link.index)).await?;
            self.state().servers.insert(transport, link.index);
        }
        Ok(name)
    }

    /// Makes the accepting slots of these VLANs on the server's TAP, down.
    ///
    /// # Errors
    ///
    /// No TAP of that server was made, a VLAN outside 2..=4094, a link of that name exists, or the
    /// kernel refuses; what was made stays for [`Self::sweep`].
    pub async fn make_accepting_slots(
        &self,
        transport: Transport,
        vlans: RangeInclusive<u16>,
        me: Prefix,
    ) -> Result<Vec<Slot>, KernelError> {
        for vlan in [*vlans.start(), *vlans.end()] {
            if !(policies::names::FIRST_VLAN..=LAST_VLAN).contains(&vlan) && !vlans.is_empty() {
                return Err(KernelError::BadSlot {
                    slot: Slot::Accepting(transport, vlan),
                });
            }
        }
        let kind = self
            .accepting_kind()
            .await
            .ok_or(KernelError::CannotAccept)?;
        let name = server_name(transport);
        let server = self.state().servers.get(&transport).copied();
        let server = server.ok_or(KernelError::NoServer { name })?;
        let make = |vlan: u16| {
            let name = Slot::Accepting(transport, vlan).to_string();
            make_link(&name, accepting_link(kind, &name, server, vlan))
        };
        self.ask_all(vlans.clone().map(make)).await?;
        let mut slots = Vec::new();
        let mut requests = Vec::new();
        for vlan in vlans {
            let slot = Slot::Accepting(transport, vlan);
            let name = slot.to_string();
            let index = index_of(&name)?;
            sysctl::quieten(&name)?;
            let alias = LinkUnspec::new_with_index(index)
                .alias(&*self.alias)
                .build();
            requests.push(set_link(format!("name the owner of link {name}"), alias));
            requests.push(give_link_local(&name, index, me));
            self.state().slots.insert(slot, index);
            slots.push(slot);
        }
        self.ask_all(requests).await?;
        Ok(slots)
    }

    /// Makes one accepting slot; see [`Self::make_accepting_slots`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn make_accepting_slot(
        &self,
        transport: Transport,
        vlan: u16,
        me: Prefix,
    ) -> Result<Slot, KernelError> {
        self.make_accepting_slots(transport, vlan..=vlan, me)
            .await?;
        Ok(Slot::Accepting(transport, vlan))
    }

    /// Creates TAPs with our alias, MAC and MTU. They persist only once they carry the alias, so
    /// that a crash in between leaves nothing that could not be recognized as ours.
    async fn make_taps(
        &self,
        named: Vec<(String, [u8; 6])>,
        owner_uid: u32,
    ) -> Result<Vec<Link>, KernelError> {
        let mut taps = Vec::new();
        let mut links = Vec::new();
        for (name, mac) in named {
            let tap = Tap::make(&name)?;
            tap.own(owner_uid)?;
            taps.push(tap);
            links.push(Link {
                index: index_of(&name)?,
                name,
                mac,
            });
        }
        let configure = |link: &Link| {
            let message = LinkUnspec::new_with_index(link.index)
                .address(link.mac.to_vec())
                .mtu(MTU)
                .alias(&*self.alias)
                .build();
            set_link(format!("configure link {}", link.name), message)
        };
        self.ask_all(links.iter().map(configure)).await?;
        taps.into_iter().try_for_each(Tap::persist)?;
        Ok(links)
    }

    /// Sets a slot up, with the link-local address that it lost if it was down.
    ///
    /// # Errors
    ///
    /// No such slot, or the kernel refuses (the server's TAP is down).
    pub async fn set_up(&self, slot: Slot, me: Prefix) -> Result<(), KernelError> {
        let (name, index) = (slot.to_string(), self.index(slot)?);
        self.ask_all([give_link_local(&name, index, me), set_link_up(&name, index)])
            .await
    }

    /// Sets a slot down: Babel's routes leave it at once.
    ///
    /// # Errors
    ///
    /// No such slot, or the kernel refuses.
    pub async fn set_down(&self, slot: Slot) -> Result<(), KernelError> {
        let message = LinkUnspec::new_with_index(self.index(slot)?).down().build();
        self.ask(set_link(format!("set link {slot} down"), message))
            .await
    }

    /// Keeps multicast, and with it Babel's hellos, off a slot; payload still flows. Does nothing
    /// where it is silent already.
    ///
    /// # Errors
    ///
    /// No such slot, or the kernel refuses.
    pub async fn silence(&self, slot: Slot) -> Result<(), KernelError> {
        let message = RouteNetlinkMessage::DelRoute(multicast_route(self.index(slot)?));
        let request = Request::change(format!("silence {slot}"), message);
        self.ask(request.forgive(&[Errno::ESRCH])).await
    }

    /// Lets multicast out of a slot again. Does nothing where it is not silent, or down: then the
    /// kernel makes that route itself as the link goes up.
    ///
    /// # Errors
    ///
    /// No such slot, or the kernel refuses.
    pub async fn unsilence(&self, slot: Slot) -> Result<(), KernelError> {
        // Appended: all slots have a route of this destination, and replacing takes another's.
        let message = RouteNetlinkMessage::NewRoute(multicast_route(self.index(slot)?));
        let request = Request::append(format!("unsilence {slot}"), message);
        self.ask(request.forgive(&[Errno::EEXIST, Errno::ENETDOWN]))
            .await
    }
}

/// Name of a server's TAP.
pub(super) fn server_name(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "wrnu",
        Transport::Tcp => "wrnt",
    }
}

fn index_of(name: &str) -> Result<u32, KernelError> {
    if_nametoindex(name)
        .map_err(|errno| KernelError::refused(format!("find link {name}"))(errno.into()))
}

fn accepting_link(kind: AcceptingKind, name: &str, server: u32, vlan: u16) -> LinkMessage {
    let mac = wire::overlay::accepting_mac(vlan).to_vec();
    match kind {
        AcceptingKind::Vlan => LinkVlan::new(name, server, vlan)
            .address(mac)
            .mtu(MTU)
            .build(),
        AcceptingKind::Macvlan => LinkMacVlan::new(name, server, MacVlanMode::Private)
            .address(mac)
            .mtu(MTU)
            .build(),
    }
}

fn make_link(name: &str, message: LinkMessage) -> Request {
    Request::create(
        format!("make link {name}"),
        RouteNetlinkMessage::NewLink(message),
    )
}

fn set_link(doing: String, message: LinkMessage) -> Request {
    Request::change(doing, RouteNetlinkMessage::SetLink(message))
}

fn set_link_up(name: &str, index: u32) -> Request {
    set_link(
        format!("set link {name} up"),
        LinkUnspec::new_with_index(index).up().build(),
    )
}

fn give_link_local(name: &str, index: u32, me: Prefix) -> Request {
    let mut message = address_message(index, wire::overlay::link_local(me).into(), 64);
    // Without a carrier, duplicate address detection would never end.
    message.header.flags = AddressHeaderFlags::Nodad;
    message.header.scope = AddressScope::Link;
    let doing = format!("give link {name} its address");
    Request::replace(doing, RouteNetlinkMessage::NewAddress(message))
}

/// An address without flags, of universal scope.
pub(super) fn address_message(index: u32, address: IpAddr, length: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = length;
    message.header.family = match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.attributes.push(AddressAttribute::Local(address));
    message.attributes.push(AddressAttribute::Address(address));
    message
}

/// The route by which all multicast leaves a link, as the kernel makes it.
fn multicast_route(index: u32) -> RouteMessage {
    RouteMessageBuilder::<Ipv6Addr>::new()
        .destination_prefix(Ipv6Addr::from_bits(0xff << 120), 8)
        .output_interface(index)
        .table_id(TABLE_LOCAL)
        .kind(RouteType::Multicast)
        .protocol(RouteProtocol::Kernel)
        // IP6_RT_PRIO_ADDRCONF of net/ip6_route.h.
        .priority(256)
        .build()
}
