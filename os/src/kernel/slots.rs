//! Creates slots, sets them up or down, and silences them for Babel.

use super::{Kernel, KernelError, bpf, request::Request, sysctl, tun::Tap};
use fault_points::fault;
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

/// MTU of every slot in bytes; with the overhead of OpenVPN, a packet fits a path with an MTU of 1500.
pub const MTU: u32 = 1400;

/// The highest VLAN number (IEEE 802.1Q: 4095 is reserved).
const LAST_VLAN: u16 = 4094;

/// `RT_TABLE_LOCAL` of linux/rtnetlink.h.
pub(super) const TABLE_LOCAL: u8 = 255;

/// The kind of link that is used for accepting slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptingKind {
    /// VLAN links of the kernel's module 8021q.
    Vlan,
    /// Macvlans, with two BPF programs on the TAP that remove and add VLAN tags.
    Macvlan,
}

/// A link under construction.
struct Link {
    name: String,
    index: u32,
    mac: [u8; 6],
}

impl Kernel {
    /// Returns which kind of link this kernel supports for accepting slots; `None` if it supports none, so that
    /// tunnels can only be dialled.
    ///
    /// The first call tries it on a temporary link; the result is remembered.
    pub async fn accepting_kind(&self) -> Option<AcceptingKind> {
        if let Some(known) = self.state().accepting {
            return known;
        }
        let found = match self.try_kinds().await {
            Ok(kind) => Some(kind),
            Err(error) => {
                let error = wire::errors::Chain(&error).to_string();
                tracing::warn!(error, "no tunnel can be accepted on this host");
                None
            }
        };
        self.state().accepting = Some(found);
        found
    }

    async fn try_kinds(&self) -> Result<AcceptingKind, KernelError> {
        // The link is not persistent, so it disappears with this process at the latest.
        let name = format!("wrnp{}", std::process::id());
        let _tap = Tap::create(&name)?;
        let index = index_of(&name)?;
        let slot_name = format!("{name}.2");
        let vlan = LinkVlan::new(&slot_name, index, 2).build();
        let Err(vlan_error) = self.execute(create_link(&slot_name, vlan)).await else {
            return Ok(AcceptingKind::Vlan);
        };
        tracing::debug!(error = %wire::errors::Chain(&vlan_error), "no VLAN links; trying macvlans");
        bpf::attach(&name, index)?;
        let macvlan = LinkMacVlan::new(&slot_name, index, MacVlanMode::Private).build();
        self.execute(create_link(&slot_name, macvlan)).await?;
        Ok(AcceptingKind::Macvlan)
    }

    /// Creates the dialling slots with these numbers for the node `me`, and sets them up. Only the user
    /// `owner_uid` and root can open them.
    ///
    /// # Errors
    ///
    /// A link of that name exists, or the kernel rejects a change. [`Self::sweep`] removes the links that were
    /// created before the error.
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
            self.configure_slot(&link.name)?;
            requests.push(add_link_local(&link.name, link.index, me));
            requests.push(set_link_up(&link.name, link.index));
            self.state().slots.insert(*slot, link.index);
        }
        self.execute_all(requests).await?;
        self.state().placed.up.extend(slots.iter().copied());
        Ok(slots)
    }

    /// Creates the TAP of this node's server of one transport, and sets it up; returns its name. The TAP carries
    /// accepting slots, and has no address itself.
    ///
    /// # Errors
    ///
    /// [`KernelError::CannotAccept`] if the kernel supports no accepting slots. A link of that name
    /// exists, or the kernel rejects a change.
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
            sysctl::disable_autoconfiguration(name)?;
            sysctl::disable_ipv6(name)?;
            match kind {
                AcceptingKind::Vlan => {}
                AcceptingKind::Macvlan => {
                    bpf::attach(name, link.index)?;
                    fault!("attach programs to {name}");
                }
            }
            self.execute(set_link_up(name, link.index)).await?;
            self.state().servers.insert(transport, link.index);
        }
        Ok(name)
    }

    /// Creates the accepting slots for these VLANs on the server's TAP, and leaves them down.
    ///
    /// # Errors
    ///
    /// The server's TAP was not created, a VLAN is outside 2..=4094, a link of that name exists, or the
    /// kernel rejects a change. [`Self::sweep`] removes the links that were created before the error.
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
        let create = |vlan: u16| {
            let name = Slot::Accepting(transport, vlan).to_string();
            create_link(&name, accepting_link(kind, &name, server, vlan))
        };
        self.execute_all(vlans.clone().map(create)).await?;
        let mut slots = Vec::new();
        let mut requests = Vec::new();
        for vlan in vlans {
            let slot = Slot::Accepting(transport, vlan);
            let name = slot.to_string();
            let index = index_of(&name)?;
            self.configure_slot(&name)?;
            let alias = LinkUnspec::new_with_index(index)
                .alias(&*self.alias)
                .build();
            requests.push(set_link(format!("set the alias of link {name}"), alias));
            requests.push(add_link_local(&name, index, me));
            self.state().slots.insert(slot, index);
            slots.push(slot);
        }
        self.execute_all(requests).await?;
        Ok(slots)
    }

    /// Gives a new slot the settings that all slots have.
    fn configure_slot(&self, name: &str) -> Result<(), KernelError> {
        sysctl::disable_autoconfiguration(name)?;
        sysctl::enable_ipv6(name)?;
        if self.state().placed.ipv4.is_some() {
            sysctl::set_ipv4_forwarding(name, true)?;
        }
        Ok(())
    }

    /// Creates TAPs, and sets their alias, MAC and MTU. A TAP is made persistent only once it has the alias, so
    /// that a crash before that leaves no link that a sweep would not recognise.
    async fn make_taps(
        &self,
        named: Vec<(String, [u8; 6])>,
        owner_uid: u32,
    ) -> Result<Vec<Link>, KernelError> {
        self.state().owner_uid = Some(owner_uid);
        let mut taps = Vec::new();
        let mut links = Vec::new();
        for (name, mac) in named {
            let tap = Tap::create(&name)?;
            tap.set_owner(owner_uid)?;
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
        self.execute_all(links.iter().map(configure)).await?;
        for (tap, link) in taps.into_iter().zip(&links) {
            tap.persist()?;
            fault!("make TAP {} persistent", link.name);
        }
        Ok(links)
    }

    /// Sets a slot up, and adds its link-local address, which it lost if it was down. An accepting slot is created
    /// first if it does not exist.
    ///
    /// # Errors
    ///
    /// There is no such dialling slot, or the kernel rejects the change, for instance since the server's TAP is down.
    pub async fn set_up(&self, slot: Slot, me: Prefix) -> Result<(), KernelError> {
        let _changing = self.host_changes.lock().await;
        if let (Slot::Accepting(transport, vlan), Err(_)) = (slot, self.index(slot)) {
            self.make_accepting_slots(transport, vlan..=vlan, me)
                .await?;
        }
        let (name, index) = (slot.to_string(), self.index(slot)?);
        self.execute_all([add_link_local(&name, index, me), set_link_up(&name, index)])
            .await?;
        self.state().placed.up.insert(slot);
        Ok(())
    }

    /// Sets a slot down; babeld then drops its routes through it at once. A slot that was never created is down.
    ///
    /// # Errors
    ///
    /// The kernel rejects the change.
    pub async fn set_down(&self, slot: Slot) -> Result<(), KernelError> {
        let _changing = self.host_changes.lock().await;
        let Ok(index) = self.index(slot) else {
            return Ok(());
        };
        self.state().placed.up.remove(&slot);
        let message = LinkUnspec::new_with_index(index).down().build();
        self.execute(set_link(format!("set link {slot} down"), message))
            .await
    }

    /// Deletes the multicast route of a slot. Multicast packets, and so babeld's hellos, no longer pass it, while
    /// unicast packets still do. A second call changes nothing.
    ///
    /// # Errors
    ///
    /// There is no such slot, or the kernel rejects the change.
    pub async fn silence(&self, slot: Slot) -> Result<(), KernelError> {
        let _changing = self.host_changes.lock().await;
        let message = RouteNetlinkMessage::DelRoute(multicast_route(self.index(slot)?));
        self.state().placed.silenced.insert(slot);
        let request = Request::change(format!("silence {slot}"), message);
        self.execute(request.forgive(&[Errno::ESRCH])).await
    }

    /// Adds the multicast route of a slot again. Changes nothing if the slot has it, or if the slot is down: the
    /// kernel itself adds the route when the link is set up.
    ///
    /// # Errors
    ///
    /// There is no such slot, or the kernel rejects the change.
    pub async fn unsilence(&self, slot: Slot) -> Result<(), KernelError> {
        let _changing = self.host_changes.lock().await;
        // The route is appended: all slots have one for this destination, and a request to replace it would
        // replace that of another slot.
        let message = RouteNetlinkMessage::NewRoute(multicast_route(self.index(slot)?));
        let request = Request::append(format!("unsilence {slot}"), message);
        self.execute(request.forgive(&[Errno::EEXIST, Errno::ENETDOWN]))
            .await?;
        self.state().placed.silenced.remove(&slot);
        Ok(())
    }
}

/// Returns the name of a server's TAP.
pub(crate) fn server_name(transport: Transport) -> &'static str {
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

fn create_link(name: &str, message: LinkMessage) -> Request {
    Request::create(
        format!("create link {name}"),
        RouteNetlinkMessage::NewLink(message),
    )
}

/// Builds a request that changes a link.
pub(super) fn set_link(doing: String, message: LinkMessage) -> Request {
    Request::change(doing, RouteNetlinkMessage::SetLink(message))
}

/// Builds a request that sets a link up.
pub(super) fn set_link_up(name: &str, index: u32) -> Request {
    set_link(
        format!("set link {name} up"),
        LinkUnspec::new_with_index(index).up().build(),
    )
}

/// Builds a request that gives a slot its link-local address.
pub(super) fn add_link_local(name: &str, index: u32, me: Prefix) -> Request {
    let mut message = address_message(index, wire::overlay::link_local(me).into(), 64);
    // Without a carrier, duplicate address detection would never complete.
    message.header.flags = AddressHeaderFlags::Nodad;
    message.header.scope = AddressScope::Link;
    let doing = format!("add the link-local address to {name}");
    Request::replace(doing, RouteNetlinkMessage::NewAddress(message))
}

/// Builds an address of global scope, without flags.
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

/// Builds the route by which multicast packets leave a link, exactly as the kernel adds it.
pub(super) fn multicast_route(index: u32) -> RouteMessage {
    RouteMessageBuilder::<Ipv6Addr>::new()
        .destination_prefix(Ipv6Addr::from_bits(0xff << 120), 8)
        .output_interface(index)
        .table_id(TABLE_LOCAL.into())
        .kind(RouteType::Multicast)
        .protocol(RouteProtocol::Kernel)
        // IP6_RT_PRIO_ADDRCONF of net/ip6_route.h.
        .priority(256)
        .build()
}
