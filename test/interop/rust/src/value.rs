//! Values of the namespace /codio/<peer id>/<name>.
use libp2p::core::SignedEnvelope;
use libp2p::identity::Keypair;
use libp2p::PeerId;

// --8<-- value
const DOMAIN: &str = "codio-value";
const PAYLOAD_TYPE: &[u8] = b"/codio/value";

/// Seals a value of this peer, to be put under `/codio/<peer id>/<name>`.
pub fn seal(keypair: &Keypair, name: &str, sequence: u64, value: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let key = format!("/codio/{}/{name}", keypair.public().to_peer_id()).into_bytes();
    // [8 bytes sequence, big-endian][2 bytes length of the key, big-endian][key][value]
    let mut payload = sequence.to_be_bytes().to_vec();
    payload.extend((key.len() as u16).to_be_bytes());
    payload.extend(&key);
    payload.extend(value);
    let envelope = SignedEnvelope::new(keypair, DOMAIN.into(), PAYLOAD_TYPE.into(), payload)
        .expect("an Ed25519 key signs");
    (key, envelope.into_protobuf_encoding())
}

/// The publisher, sequence and value; nothing unless they belong under the key and its publisher has signed them.
pub fn open(key: &[u8], sealed: &[u8]) -> Option<(PeerId, u64, Vec<u8>)> {
    let envelope = SignedEnvelope::from_protobuf_encoding(sealed).ok()?;
    let (payload, signer) = envelope
        .payload_and_signing_key(DOMAIN.into(), PAYLOAD_TYPE)
        .ok()?;
    let publisher = signer.to_peer_id();
    let sequence = u64::from_be_bytes(payload.get(..8)?.try_into().ok()?);
    let end = 10 + u16::from_be_bytes(payload.get(8..10)?.try_into().ok()?) as usize;
    let prefix = format!("/codio/{publisher}/");
    (payload.get(10..end)? == key && key.starts_with(prefix.as_bytes()))
        .then(|| (publisher, sequence, payload[end..].to_vec()))
}
// --8<-- end
