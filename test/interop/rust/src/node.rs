//! A swarm that joins a network of Codio nodes. docs/INTEROP.md shows what stands between the marks.
use libp2p::identity::Keypair;
use libp2p::kad::store::MemoryStore;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::NetworkBehaviour;
use libp2p::{
    dcutr, identify, kad, mdns, noise, ping, relay, tcp, yamux, StreamProtocol, Swarm, SwarmBuilder,
};
use std::error::Error;
use std::time::Duration;

#[derive(NetworkBehaviour)]
pub struct Behaviour {
    pub identify: identify::Behaviour,
    pub ping: ping::Behaviour,
    pub kad: Toggle<kad::Behaviour<MemoryStore>>,
    pub mdns: Toggle<mdns::tokio::Behaviour>,
    pub relay_client: relay::client::Behaviour,
    pub relay: Toggle<relay::Behaviour>,
    pub dcutr: dcutr::Behaviour,
    pub stream: libp2p_stream::Behaviour,
}

pub struct Options {
    pub kad: Option<String>,
    pub mdns: bool,
    pub relay: bool,
    /// Pings seldom: every 15 s, as is the default, rather than twice a second.
    pub quiet: bool,
}

// --8<-- swarm
pub fn new_swarm(keypair: Keypair, options: &Options) -> Result<Swarm<Behaviour>, Box<dyn Error>> {
    let swarm = SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(
            // Without it every small exchange takes 40 ms and more.
            tcp::Config::default().nodelay(true),
            noise::Config::new,
            yamux::Config::default,
        )?
        .with_relay_client(noise::Config::new, yamux::Config::default)?
        .with_behaviour(|key, relay_client| {
            let peer = key.public().to_peer_id();
            Ok(Behaviour {
                identify: identify::Behaviour::new(
                    identify::Config::new("/codio/1.0.0".into(), key.public())
                        .with_agent_version("codio-interop-rust/1".into()),
                ),
                kad: new_kad(peer, options.kad.as_deref())?.into(),
                // --8<-- end
                ping: ping::Behaviour::new(ping::Config::new().with_interval(
                    Duration::from_millis(if options.quiet { 15_000 } else { 500 }),
                )),
                mdns: match options.mdns {
                    true => Some(mdns::tokio::Behaviour::new(mdns::Config::default(), peer)?),
                    false => None,
                }
                .into(),
                relay_client,
                relay: options
                    .relay
                    .then(|| relay::Behaviour::new(peer, Default::default()))
                    .into(),
                dcutr: dcutr::Behaviour::new(peer),
                stream: libp2p_stream::Behaviour::new(),
            })
        })?
        // --8<-- idle
        // By default a connection without streams is closed at once.
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(300)))
        .build();
    Ok(swarm)
}
// --8<-- end

// --8<-- kad
fn new_kad(
    peer: libp2p::PeerId,
    protocol: Option<&str>,
) -> Result<Option<kad::Behaviour<MemoryStore>>, Box<dyn Error + Send + Sync>> {
    let Some(protocol) = protocol else {
        return Ok(None);
    };
    let mut config = kad::Config::default();
    config.set_protocol_names(vec![StreamProtocol::try_from_owned(protocol.into())?]);
    let mut kad = kad::Behaviour::with_config(peer, MemoryStore::new(peer), config);
    // By itself it stays a client until an external address is confirmed, and clients are not asked.
    kad.set_mode(Some(kad::Mode::Server));
    Ok(Some(kad))
}
// --8<-- end
