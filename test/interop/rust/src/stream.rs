//! What moves over streams, and what is told of it.
use crate::say;
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::{PeerId, Stream, StreamProtocol};
use libp2p_stream::Control;
use serde_json::{json, Value};
use std::io;
use std::time::{Duration, Instant};

const ECHO: &str = "/codio/test/echo/1.0.0";
const DRAIN: &str = "/codio/test/drain/1.0.0";
const SLOW: &str = "/codio/test/slow/1.0.0";
const SINK: &str = "/codio/test/sink/1.0.0";
const RESET: &str = "/codio/test/reset/1.0.0";

// Bytes of a fixed pattern whose period is a prime, so that a piece that is lost, doubled or out of order shows.
const PERIOD: usize = 65521;

struct Pattern(Vec<u8>);

impl Pattern {
    fn new() -> Self {
        let byte = |i: usize| (i * i * 31 + i) as u8;
        Pattern((0..2 * PERIOD).map(|i| byte(i % PERIOD)).collect())
    }
    fn at(&self, offset: u64, length: usize) -> &[u8] {
        let start = (offset % PERIOD as u64) as usize;
        &self.0[start..start + length]
    }
}

#[derive(Default)]
struct Checked {
    bytes: u64,
    damaged: bool,
    error: Option<io::Error>,
}

/// Reads to the end, and compares with the pattern.
async fn drain(stream: &mut (impl AsyncReadExt + Unpin), pause: Option<Duration>) -> Checked {
    let pattern = Pattern::new();
    let mut result = Checked::default();
    let mut buffer = vec![0; 32 * 1024];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) => return result,
            Ok(count) => {
                result.damaged |= &buffer[..count] != pattern.at(result.bytes, count);
                result.bytes += count as u64;
            }
            Err(error) => {
                result.error = Some(error);
                return result;
            }
        }
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
    }
}

async fn fill(stream: &mut (impl AsyncWriteExt + Unpin), bytes: u64) -> io::Result<()> {
    let pattern = Pattern::new();
    let mut sent = 0;
    while sent < bytes {
        let length = (bytes - sent).min(PERIOD as u64) as usize;
        stream.write_all(pattern.at(sent, length)).await?;
        sent += length as u64;
    }
    stream.flush().await
}

fn report(protocol: &str, peer: PeerId, result: Checked) {
    let error = result.error.map(|error| error.to_string());
    say(json!({
        "event": "received", "protocol": protocol, "peer": peer.to_string(), "bytes": result.bytes,
        "intact": !result.damaged, "error": error,
    }));
}

async fn accepted(protocol: &'static str, peer: PeerId, mut stream: Stream) {
    match protocol {
        // Sends back what comes, and ends when the other side does.
        ECHO => {
            let (reader, mut writer) = stream.split();
            if futures::io::copy(reader, &mut writer).await.is_ok() {
                let _ = writer.close().await;
            }
        }
        // Ends its own half first, then reads.
        DRAIN | SLOW => {
            let _ = stream.close().await;
            let pause = (protocol == SLOW).then_some(Duration::from_millis(2));
            let result = drain(&mut stream, pause).await;
            report(protocol, peer, result);
        }
        // Reads, and ends its own half last.
        SINK => {
            let result = drain(&mut stream, None).await;
            report(protocol, peer, result);
            let _ = stream.close().await;
        }
        // Resets in the middle: a stream that is dropped before it is closed does that.
        _ => {
            let _ = stream.read_exact(&mut vec![0; 1024]).await;
        }
    }
}

pub fn serve(control: &Control) {
    for protocol in [ECHO, DRAIN, SLOW, SINK, RESET] {
        let mut incoming = control
            .clone()
            .accept(StreamProtocol::new(protocol))
            .expect("registered once");
        tokio::spawn(async move {
            while let Some((peer, stream)) = incoming.next().await {
                tokio::spawn(accepted(protocol, peer, stream));
            }
        });
    }
}

/// Opens a stream and does what the mode says; answers with what came back.
pub async fn open(mut control: Control, peer: PeerId, command: &Value) -> Result<Value, String> {
    let text = |name: &str| command[name].as_str().unwrap_or_default().to_owned();
    let bytes = command["bytes"].as_u64().unwrap_or_default();
    let protocol = StreamProtocol::try_from_owned(text("protocol")).map_err(|e| e.to_string())?;
    let mut stream = control
        .open_stream(peer, protocol)
        .await
        .map_err(|e| e.to_string())?;
    let began = Instant::now();
    let failed = |error: io::Error| error.to_string();
    let mut back = Checked::default();
    match text("mode").as_str() {
        // Writes and reads at once, ends its half when all is written.
        mode @ ("echo" | "slow") => {
            let pause = (mode == "slow").then_some(Duration::from_millis(2));
            let (mut reader, mut writer) = stream.split();
            let write = async {
                fill(&mut writer, bytes).await?;
                writer.close().await
            };
            let (read, written) = futures::join!(drain(&mut reader, pause), write);
            back = read;
            if back.error.is_none() {
                written.map_err(failed)?;
            }
        }
        // Waits for the other half to end, then writes.
        "send" => {
            back = drain(&mut stream, None).await;
            if back.error.is_none() {
                fill(&mut stream, bytes).await.map_err(failed)?;
                stream.close().await.map_err(failed)?;
            }
        }
        // Writes, and resets in the middle.
        "reset" => {
            fill(&mut stream, bytes).await.map_err(failed)?;
            tokio::time::sleep(Duration::from_millis(100)).await;
            drop(stream);
        }
        // Writes, and waits for what the other side does.
        _ => {
            let _ = fill(&mut stream, bytes).await;
            back = drain(&mut stream, None).await;
        }
    }
    Ok(json!({
        "bytes": back.bytes, "intact": !back.damaged, "millis": began.elapsed().as_millis() as u64,
        "reset": back.error.map(|error| error.to_string()),
    }))
}
