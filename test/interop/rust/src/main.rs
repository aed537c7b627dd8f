//! A peer of rust-libp2p for the interop suite, driven by JSON lines: one command a line on standard input, one answer or event a line on
//! standard output. Its options are one JSON object, the only argument.
mod node;
mod stream;
mod value;

use futures::StreamExt;
use libp2p::kad::{self, QueryId, QueryResult, Quorum, Record, RecordKey};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{ConnectionId, SwarmEvent};
use libp2p::{identify, mdns, ping, relay, Multiaddr, PeerId, Swarm};
use node::{new_swarm, Behaviour, BehaviourEvent, Options};
use serde_json::{json, Value};
use std::collections::{BTreeSet, HashMap};
use std::error::Error;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::mpsc;

pub fn say(line: Value) {
    println!("{line}");
}

/// Commands whose answers come later.
#[derive(Default)]
struct Waiting {
    dials: HashMap<ConnectionId, u64>,
    identify: HashMap<PeerId, Vec<u64>>,
    pings: HashMap<PeerId, Vec<u64>>,
    reservations: HashMap<PeerId, u64>,
    puts: HashMap<QueryId, u64>,
    provides: HashMap<QueryId, u64>,
    finds: HashMap<QueryId, (u64, BTreeSet<String>)>,
    gets: HashMap<QueryId, Get>,
    /// When the commands came whose answers say how long they took, and when the first provider was found.
    began: HashMap<u64, (Instant, Option<f64>)>,
}

struct Get {
    id: u64,
    key: Vec<u8>,
    quorum: usize,
    found: usize,
    best: Option<(u64, Vec<u8>)>,
}

struct Node {
    swarm: Swarm<Behaviour>,
    keypair: libp2p::identity::Keypair,
    known: HashMap<PeerId, identify::Info>,
    connections: HashMap<ConnectionId, (PeerId, Multiaddr, bool)>,
    waiting: Waiting,
    external: bool,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let options: Value = serde_json::from_str(&std::env::args().nth(1).ok_or("no options")?)?;
    let flag = |name: &str| options[name].as_bool().unwrap_or_default();
    let keypair = libp2p::identity::Keypair::generate_ed25519();
    let swarm = new_swarm(
        keypair.clone(),
        &Options {
            kad: options["kad"].as_str().map(Into::into),
            mdns: flag("mdns"),
            relay: flag("relay"),
            quiet: flag("quiet"),
        },
    )?;
    let mut node = Node {
        swarm,
        keypair,
        known: HashMap::new(),
        connections: HashMap::new(),
        waiting: Waiting::default(),
        external: flag("external"),
    };
    let listen: Multiaddr = options["listen"].as_str().ok_or("no listen")?.parse()?;
    node.swarm.listen_on(listen)?;
    // Ready once it listens.
    loop {
        let event = node.swarm.select_next_some().await;
        let is_first = matches!(event, SwarmEvent::NewListenAddr { .. });
        node.on(event);
        if is_first {
            break;
        }
    }
    stream::serve(&node.swarm.behaviour().stream.new_control());
    say(
        json!({ "event": "ready", "peer": node.swarm.local_peer_id().to_string(), "addresses": node.addresses() }),
    );

    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let (answer, mut answers) = mpsc::unbounded_channel::<(u64, Result<Value, String>)>();
    loop {
        tokio::select! {
            line = lines.next_line() => {
                let Some(line) = line? else { return Ok(()) };
                let command: Value = serde_json::from_str(&line)?;
                let id = command["id"].as_u64().ok_or("no id")?;
                match node.run(id, &command, &answer) {
                    Ok(Some(value)) => reply(id, Ok(value)),
                    Ok(None) => {}
                    Err(error) => reply(id, Err(error.to_string())),
                }
            }
            Some((id, result)) = answers.recv() => reply(id, result),
            event = node.swarm.select_next_some() => node.on(event),
        }
    }
}

fn reply(id: u64, result: Result<Value, String>) {
    match result {
        Ok(mut value) => {
            value["id"] = id.into();
            say(value);
        }
        Err(error) => say(json!({ "id": id, "error": error })),
    }
}

fn replies(ids: Option<Vec<u64>>, value: &Value) {
    for id in ids.unwrap_or_default() {
        reply(id, Ok(value.clone()));
    }
}

fn described(info: &identify::Info) -> Value {
    let protocols: Vec<_> = info.protocols.iter().map(ToString::to_string).collect();
    json!({ "agent": info.agent_version, "version": info.protocol_version, "protocols": protocols })
}

type Answers = mpsc::UnboundedSender<(u64, Result<Value, String>)>;

impl Node {
    fn addresses(&self) -> Vec<String> {
        let own = Protocol::P2p(*self.swarm.local_peer_id());
        let listeners = self.swarm.listeners().cloned();
        listeners
            .map(|address| {
                address
                    .with_p2p(*self.swarm.local_peer_id())
                    .unwrap_or_else(|a| a.with(own.clone()))
                    .to_string()
            })
            .collect()
    }

    fn kad(&mut self) -> Result<&mut kad::Behaviour<kad::store::MemoryStore>, Box<dyn Error>> {
        self.swarm
            .behaviour_mut()
            .kad
            .as_mut()
            .ok_or_else(|| "no kad".into())
    }

    /// Answers at once, or later, when an event has the answer.
    fn run(
        &mut self,
        id: u64,
        command: &Value,
        answers: &Answers,
    ) -> Result<Option<Value>, Box<dyn Error>> {
        let text = |name: &str| command[name].as_str().unwrap_or_default();
        let number = |name: &str| command[name].as_u64().unwrap_or_default();
        let peer = || text("peer").parse::<PeerId>();
        let key = || hex::decode(text("key"));
        if let "provide" | "find" = text("op") {
            self.waiting.began.insert(id, (Instant::now(), None));
        }
        match text("op") {
            "addresses" => return Ok(Some(json!({ "addresses": self.addresses() }))),
            "connect" => {
                let dial: DialOpts = text("addr").parse::<Multiaddr>()?.into();
                self.waiting.dials.insert(dial.connection_id(), id);
                self.swarm.dial(dial)?;
            }
            "disconnect" => {
                let _ = self.swarm.disconnect_peer_id(peer()?);
                return Ok(Some(json!({})));
            }
            "peers" => {
                let peers: Vec<_> = self.connections.values().map(|(peer, addr, outbound)| {
                    json!({ "peer": peer.to_string(), "addr": addr.to_string(), "outbound": outbound })
                }).collect();
                return Ok(Some(json!({ "peers": peers })));
            }
            "identify" => match self.known.get(&peer()?) {
                Some(info) => return Ok(Some(described(info))),
                None => self.waiting.identify.entry(peer()?).or_default().push(id),
            },
            "ping" => self.waiting.pings.entry(peer()?).or_default().push(id),
            "kad-peers" => {
                let count: usize = self
                    .kad()?
                    .kbuckets()
                    .map(|bucket| bucket.num_entries())
                    .sum();
                return Ok(Some(json!({ "count": count })));
            }
            // --8<-- provide
            "provide" => {
                // Any bytes are a key: `RecordKey::new(b"my-content-key")`, or a sha2-256 multihash.
                let query = self.kad()?.start_providing(RecordKey::new(&key()?))?;
                self.waiting.provides.insert(query, id);
            }
            "find" => {
                let query = self.kad()?.get_providers(RecordKey::new(&key()?));
                self.waiting.finds.insert(query, (id, BTreeSet::new()));
            }
            // --8<-- end
            "put" => {
                let (key, sealed) = value::seal(
                    &self.keypair,
                    text("path"),
                    number("sequence"),
                    &hex::decode(text("value"))?,
                );
                let quorum =
                    NonZeroUsize::new(number("quorum") as usize).map_or(Quorum::One, Quorum::N);
                let query = self.kad()?.put_record(Record::new(key, sealed), quorum)?;
                self.waiting.puts.insert(query, id);
            }
            "get" => {
                let key = format!("/codio/{}", text("path")).into_bytes();
                let query = self.kad()?.get_record(RecordKey::new(&key));
                let quorum = (number("quorum") as usize).max(1);
                self.waiting.gets.insert(
                    query,
                    Get {
                        id,
                        key,
                        quorum,
                        found: 0,
                        best: None,
                    },
                );
            }
            // --8<-- reserve
            "reserve" => {
                let relay: Multiaddr = text("addr").parse()?;
                let Some(Protocol::P2p(relay_peer)) = relay.iter().last() else {
                    return Err("a relay's address ends in its peer id".into());
                };
                self.swarm.listen_on(relay.with(Protocol::P2pCircuit))?;
                // --8<-- end
                self.waiting.reservations.insert(relay_peer, id);
            }
            "stream" => {
                let control = self.swarm.behaviour().stream.new_control();
                let (peer, command, answers) = (peer()?, command.clone(), answers.clone());
                tokio::spawn(async move {
                    let limit = Duration::from_secs(60);
                    let result =
                        tokio::time::timeout(limit, stream::open(control, peer, &command)).await;
                    let _ = answers.send((
                        id,
                        result.unwrap_or_else(|_| Err("not done within a minute".into())),
                    ));
                });
            }
            "crowd" => {
                let (target, answers) = (text("addr").parse()?, answers.clone());
                let count = number("count");
                tokio::spawn(async move {
                    let _ = answers.send((id, crowd(target, count).await));
                });
            }
            other => return Err(format!("no such command: {other}").into()),
        }
        Ok(None)
    }

    fn on(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::NewListenAddr { address, .. } => {
                // --8<-- external
                // Providers, relays and peers behind them are told of external addresses only.
                if self.external {
                    self.swarm.add_external_address(address);
                }
                // --8<-- end
            }
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            } => {
                let addr = match &endpoint {
                    libp2p::core::ConnectedPoint::Listener { local_addr, .. }
                        if endpoint.is_relayed() =>
                    {
                        local_addr.clone()
                    }
                    _ => endpoint.get_remote_address().clone(),
                };
                say(
                    json!({ "event": "connected", "peer": peer_id.to_string(), "addr": addr.to_string() }),
                );
                self.connections
                    .insert(connection_id, (peer_id, addr, endpoint.is_dialer()));
                if let Some(id) = self.waiting.dials.remove(&connection_id) {
                    reply(id, Ok(json!({ "peer": peer_id.to_string() })));
                }
            }
            SwarmEvent::ConnectionClosed {
                peer_id,
                connection_id,
                num_established,
                ..
            } => {
                self.connections.remove(&connection_id);
                if num_established == 0 {
                    say(json!({ "event": "disconnected", "peer": peer_id.to_string() }));
                }
            }
            SwarmEvent::OutgoingConnectionError {
                connection_id,
                error,
                ..
            } => {
                if let Some(id) = self.waiting.dials.remove(&connection_id) {
                    reply(id, Err(error.to_string()));
                }
            }
            SwarmEvent::ListenerClosed {
                reason: Err(error), ..
            } => {
                for (_, id) in self.waiting.reservations.drain() {
                    reply(id, Err(error.to_string()));
                }
            }
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            _ => {}
        }
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            // --8<-- identify
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info }) => {
                // Kademlia does not learn of peers by itself.
                if let Some(kad) = self.swarm.behaviour_mut().kad.as_mut() {
                    if info
                        .protocols
                        .iter()
                        .any(|name| kad.protocol_names().contains(name))
                    {
                        for address in &info.listen_addrs {
                            kad.add_address(&peer_id, address.clone());
                        }
                    }
                }
                // --8<-- end
                replies(self.waiting.identify.remove(&peer_id), &described(&info));
                self.known.insert(peer_id, info);
            }
            BehaviourEvent::Ping(ping::Event {
                peer,
                result: Ok(after),
                ..
            }) => {
                replies(
                    self.waiting.pings.remove(&peer),
                    &json!({ "millis": after.as_secs_f64() * 1000.0 }),
                );
            }
            BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => {
                for (peer, _) in found {
                    say(json!({ "event": "mdns", "peer": peer.to_string() }));
                }
            }
            BehaviourEvent::RelayClient(relay::client::Event::ReservationReqAccepted {
                relay_peer_id,
                ..
            }) => {
                if let Some(id) = self.waiting.reservations.remove(&relay_peer_id) {
                    reply(id, Ok(json!({})));
                }
            }
            BehaviourEvent::Dcutr(event) => {
                let ok = event.result.is_ok();
                say(
                    json!({ "event": "dcutr", "peer": event.remote_peer_id.to_string(), "ok": ok }),
                );
            }
            BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed {
                id, result, step, ..
            }) => self.on_query(id, result, step.last),
            _ => {}
        }
    }

    /// The milliseconds since a command came, and until its first provider.
    fn took(&mut self, id: u64) -> (f64, Option<f64>) {
        let began = self.waiting.began.remove(&id);
        began.map_or((0.0, None), |(began, first)| {
            (began.elapsed().as_secs_f64() * 1000.0, first)
        })
    }

    fn on_query(&mut self, query: QueryId, result: QueryResult, is_last: bool) {
        let error = match &result {
            QueryResult::StartProviding(Err(error)) => Some(format!("{error:?}")),
            QueryResult::PutRecord(Err(error)) => Some(format!("{error:?}")),
            _ => None,
        };
        let done = error.map_or(Ok(json!({})), Err);
        match result {
            QueryResult::StartProviding(_) => {
                if let Some(id) = self.waiting.provides.remove(&query) {
                    let (took, _) = self.took(id);
                    reply(id, done.map(|_| json!({ "millis": took })));
                }
            }
            QueryResult::PutRecord(_) => self
                .waiting
                .puts
                .remove(&query)
                .into_iter()
                .for_each(|id| reply(id, done.clone())),
            QueryResult::GetProviders(found) => {
                if let (
                    Some((id, all)),
                    Ok(kad::GetProvidersOk::FoundProviders { providers, .. }),
                ) = (self.waiting.finds.get_mut(&query), &found)
                {
                    let began = self
                        .waiting
                        .began
                        .get_mut(id)
                        .filter(|_| !providers.is_empty());
                    if let Some((began, first)) = began {
                        first.get_or_insert(began.elapsed().as_secs_f64() * 1000.0);
                    }
                    all.extend(providers.iter().map(ToString::to_string));
                }
                if is_last {
                    if let Some((id, all)) = self.waiting.finds.remove(&query) {
                        let providers: Vec<_> = all
                            .into_iter()
                            .map(|peer| json!({ "peer": peer, "addresses": [] }))
                            .collect();
                        let (took, first) = self.took(id);
                        reply(
                            id,
                            Ok(
                                json!({ "providers": providers, "millis": took, "firstMillis": first }),
                            ),
                        );
                    }
                }
            }
            QueryResult::GetRecord(found) => {
                let Some(get) = self.waiting.gets.get_mut(&query) else {
                    return;
                };
                if let Ok(kad::GetRecordOk::FoundRecord(record)) = found {
                    // Whoever stored it may have stored anything.
                    if let Some((_, sequence, _)) = value::open(&get.key, &record.record.value) {
                        get.found += 1;
                        let this = (sequence, record.record.value);
                        get.best = get.best.take().max(Some(this));
                    }
                }
                let is_enough = get.found >= get.quorum;
                if !is_enough && !is_last {
                    return;
                }
                let Some(get) = self.waiting.gets.remove(&query) else {
                    return;
                };
                if let Some(mut query) = self
                    .swarm
                    .behaviour_mut()
                    .kad
                    .as_mut()
                    .and_then(|kad| kad.query_mut(&query))
                {
                    query.finish();
                }
                match get
                    .best
                    .filter(|_| is_enough)
                    .and_then(|(_, sealed)| value::open(&get.key, &sealed))
                {
                    Some((publisher, sequence, value)) => reply(
                        get.id,
                        Ok(json!({
                            "publisher": publisher.to_string(), "sequence": sequence, "value": hex::encode(value),
                        })),
                    ),
                    None => reply(get.id, Err(format!("{} of {}", get.found, get.quorum))),
                }
            }
            _ => {}
        }
    }
}

/// Connects from as many swarms of their own, all at once, and tells how many are still connected after a second.
async fn crowd(target: Multiaddr, count: u64) -> Result<Value, String> {
    let began = Instant::now();
    let peers = (0..count).map(|_| {
        let target = target.clone();
        async move {
            let keypair = libp2p::identity::Keypair::generate_ed25519();
            let mut swarm = new_swarm(
                keypair,
                &Options {
                    kad: None,
                    mdns: false,
                    relay: false,
                    quiet: false,
                },
            )
            .map_err(|e| e.to_string())?;
            swarm.dial(target).map_err(|e| e.to_string())?;
            let mut millis = 0;
            let mut is_connected = false;
            let mut until = tokio::time::Instant::now() + Duration::from_secs(5);
            while let Ok(event) = tokio::time::timeout_at(until, swarm.select_next_some()).await {
                match event {
                    SwarmEvent::ConnectionEstablished { .. } => {
                        millis = began.elapsed().as_millis() as u64;
                        is_connected = true;
                        until = tokio::time::Instant::now() + Duration::from_secs(1);
                    }
                    SwarmEvent::ConnectionClosed {
                        num_established: 0, ..
                    }
                    | SwarmEvent::OutgoingConnectionError { .. } => {
                        is_connected = false;
                    }
                    _ => {}
                }
            }
            Ok::<_, String>((is_connected, millis))
        }
    });
    let results = futures::future::try_join_all(peers).await?;
    let connected = results
        .iter()
        .filter(|(is_connected, _)| *is_connected)
        .count();
    let millis = results.iter().map(|(_, millis)| millis).max();
    Ok(json!({ "connected": connected, "millis": millis }))
}
