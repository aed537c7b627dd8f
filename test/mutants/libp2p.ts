import type { Mutant } from "./Mutant.ts"

export const libp2pMutants: ReadonlyArray<Mutant> = [
  {
    name: "what is unread counts no more when its stream has ended",
    file: "src/layers/libp2p/wire/Yamux.ts",
    text: "isOver() && (reader === undefined || waiting() === 0) ? share.close()",
    replacement: "isOver() ? share.close()",
    specs: ["test/layers/libp2p/wire/StreamShares.live.test.ts"]
  },
  {
    name: "an observed address that cannot be printed ends the process",
    file: "src/layers/libp2p/Connection.ts",
    text: "result.observedAddr === undefined ? undefined : textOf(result.observedAddr)",
    replacement: "result.observedAddr?.toString() as Multiaddr | undefined",
    specs: ["test/layers/libp2p/Transport.live.test.ts"]
  },
  {
    name: "IPv6 listens on a port of its own",
    file: "src/layers/libp2p/Listening.ts",
    text: "own === undefined ? port : portOf(own.toString())",
    replacement: "port",
    specs: ["test/layers/libp2p/Listening.test.ts"]
  },
  {
    name: "a machine without IPv6 fails to start",
    file: "src/layers/libp2p/Listening.ts",
    text: "if (!toError(cause).message.includes(\"EADDRINUSE\")) return undefined",
    replacement: "",
    specs: ["test/layers/libp2p/Listening.test.ts"]
  },
  {
    name: "a node that has only loopback says nothing",
    file: "src/layers/libp2p/Listening.ts",
    text: "if (addresses.some(isWildcard) && all.every",
    replacement: "if (addresses.length < 0 && all.every",
    specs: ["test/layers/libp2p/Listening.test.ts"]
  },
  {
    name: "a direct connection beside a relayed one never came of a hole",
    file: "src/layers/libp2p/Punches.ts",
    text: "if (all.some((one) => !one.direct && isUpgrading(one))) return true",
    replacement: "if (all.length < 0) return true",
    specs: ["test/layers/libp2p/Punches.test.ts"]
  },
  {
    name: "a dial of this node counts as a punched hole",
    file: "src/layers/libp2p/Punches.ts",
    text: "if (direct.direction === \"outbound\" && dials.has(direct.remotePeer.toString())) return false",
    replacement: "",
    specs: ["test/layers/libp2p/Punches.test.ts"]
  },
  {
    name: "the first of two dials that ends makes the other a punched hole",
    file: "src/layers/libp2p/Punches.ts",
    text: "if (left === 0) dials.delete(peer)",
    replacement: "if (left >= 0) dials.delete(peer)",
    specs: ["test/layers/libp2p/Punches.test.ts"]
  },
  {
    name: "nobody tells which dials are this node's own",
    file: "src/layers/libp2p/Transport.ts",
    text: "punches.during(expected, () => dialOnce(resolved, signal))",
    replacement: "dialOnce(resolved, signal)",
    specs: ["test/live/relay.live.test.ts"],
    only: "is told apart from a hole that was punched"
  },
  {
    name: "a dial whose connection closes takes no other open connection of the peer",
    file: "src/layers/libp2p/Transport.ts",
    text: "const other = best(localPeer, node.getConnections(underlying.remotePeer)) ??",
    replacement: "const other =",
    specs: ["test/live/relay.live.test.ts"],
    only: "since a direct one stands"
  },
  {
    name: "a dial whose relayed connection closes does not wait for the direct one",
    file: "src/layers/libp2p/Transport.ts",
    text: "(isCut ? yield* nextConnection(node, underlying.remotePeer) : undefined)",
    replacement: "(isCut ? undefined : undefined)",
    specs: ["test/live/relay.live.test.ts"],
    only: "when a direct one follows"
  },
  {
    name: "a connection may be closing for ever",
    file: "src/layers/libp2p/Host.ts",
    text: "closeInTime(detail, closingMillis)",
    replacement: "closeInTime(detail, 100 * closingMillis)",
    specs: ["test/live/relay.live.test.ts"],
    only: "counts as lost when it does not close in time"
  },
  {
    name: "the newest muxer is held",
    file: "src/layers/libp2p/wire/GoAway.ts",
    text: "newest = new WeakRef(muxer)",
    replacement: "newest = { deref: () => muxer } as WeakRef<YamuxMuxer>",
    specs: ["test/live/lifetimes.live.test.ts"],
    only: "after the loss of a young connection"
  },
  {
    name: "libp2p has a ceiling below that of the peer table",
    file: "src/layers/libp2p/Host.ts",
    text: "maxConnections: Number.POSITIVE_INFINITY",
    replacement: "maxConnections: config.maxPeers",
    specs: ["test/live/limits.live.test.ts"]
  },
  {
    name: "the peer store forgets nobody",
    file: "src/layers/libp2p/BoundedPeerStore.ts",
    text: "void remove(keyOf(name))",
    replacement: "void keyOf(name)",
    specs: ["test/layers/libp2p/BoundedPeerStore.live.test.ts"]
  },
  {
    name: "the peer store forgets connected peers",
    file: "src/layers/libp2p/BoundedPeerStore.ts",
    text: "connectionManager.getConnections(id).length > 0 || ",
    replacement: "",
    specs: ["test/layers/libp2p/BoundedPeerStore.live.test.ts"]
  },
  {
    name: "the rule of the peer store outlives its scope",
    file: "src/layers/libp2p/BoundedPeerStore.ts",
    text: "isOfInterest = undefined",
    replacement: "void isOfInterest",
    specs: ["test/layers/libp2p/BoundedPeerStore.live.test.ts"]
  },
  {
    name: "all of the budget is for windows",
    file: "src/layers/StreamBudget.ts",
    text: "limit / 2",
    replacement: "limit",
    specs: ["test/layers/StreamBudget.test.ts"]
  },
  {
    name: "a full connection narrows the others",
    file: "src/layers/StreamBudget.ts",
    text: "half / (others + 1))",
    replacement: "0)",
    specs: ["test/layers/StreamBudget.test.ts"]
  },
  {
    name: "slow streams of a connection have no even share",
    file: "src/layers/StreamBudget.ts",
    text: "ours / (siblings + 1))",
    replacement: "0)",
    specs: ["test/layers/StreamBudget.test.ts"]
  },
  {
    name: "what was promised does not count",
    file: "src/layers/StreamBudget.ts",
    text: "Math.max(waiting, promised)",
    replacement: "waiting",
    specs: ["test/layers/StreamBudget.test.ts"]
  },
  {
    name: "the budget holds one byte less",
    file: "src/layers/StreamBudget.ts",
    text: "node.waiting > node.limit",
    replacement: "node.waiting >= node.limit",
    specs: ["test/layers/StreamBudget.test.ts"]
  },
  {
    name: "the first connection loses a stream, not the fullest",
    file: "src/layers/StreamBudget.ts",
    text: "one.waiting > (found?.waiting ?? 0)",
    replacement: "found === undefined && one.waiting > 0",
    specs: ["test/layers/StreamBudget.test.ts"]
  },
  {
    name: "a stream is evicted by an old number",
    file: "src/layers/StreamBudget.ts",
    text: "    fullest.measure()\n",
    replacement: "",
    specs: ["test/layers/StreamBudget.test.ts"]
  },
  {
    name: "a stream that has closed is measured",
    file: "src/layers/StreamBudget.ts",
    text: "if (isOpen) set(holder.waiting(), holder.promised())",
    replacement: "set(holder.waiting(), holder.promised())",
    specs: ["test/layers/StreamBudget.test.ts"]
  },
  {
    name: "a peer without streams is remembered",
    file: "src/layers/StreamBudget.ts",
    text: "() => groups.delete(peer)",
    replacement: "() => {}",
    specs: ["test/layers/StreamBudget.test.ts"]
  },
  {
    name: "a group has no share of its own",
    file: "src/layers/StreamBudget.ts",
    text: "Math.min(own, Math.max(",
    replacement: "Math.max(own, Math.max(",
    specs: ["test/layers/StreamBudget.test.ts"]
  },
  {
    name: "a stream that joins a full group stays",
    file: "src/layers/StreamBudget.ts",
    text: "        makeRoomIn(given)\n",
    replacement: "",
    specs: ["test/layers/StreamBudget.test.ts"]
  },
  {
    name: "the first update of a stream grants or takes",
    file: "src/layers/libp2p/wire/Yamux.ts",
    text: "if (isOpening(stream)) return send()",
    replacement: "",
    specs: ["test/layers/libp2p/wire/StreamShares.live.test.ts"]
  },
  {
    name: "unread bytes in a stream are not counted",
    file: "src/layers/libp2p/wire/Yamux.ts",
    text: "const waiting = () => unread() + (isOver() ? 0 : stream.writeBufferLength)",
    replacement: "const waiting = () => stream.writeBufferLength",
    specs: ["test/layers/libp2p/wire/StreamShares.live.test.ts"]
  },
  {
    name: "what a connection has not sent is not counted",
    file: "src/layers/libp2p/wire/Yamux.ts",
    text: "  countUnsent(budget, connection, muxer, link)\n",
    replacement: "",
    specs: ["test/layers/libp2p/wire/StreamShares.live.test.ts"]
  },
  {
    name: "unsent bytes are not counted",
    file: "src/layers/libp2p/wire/Yamux.ts",
    text: "const waiting = () => unread() + (isOver() ? 0 : stream.writeBufferLength)",
    replacement: "const waiting = unread",
    specs: ["test/layers/libp2p/wire/StreamShares.live.test.ts"]
  },
  {
    name: "slow readers have the window of fast ones",
    file: "src/layers/libp2p/wire/Yamux.ts",
    text: "Math.min(Math.max(stream.recvWindow, firstWindow), window)",
    replacement: "Math.max(stream.recvWindow, firstWindow)",
    specs: ["test/layers/libp2p/wire/StreamShares.live.test.ts"]
  },
  {
    name: "a reader that took everything waits for a window",
    file: "src/layers/libp2p/wire/Yamux.ts",
    text: "if (isRead && stream",
    replacement: "if (!isRead && stream",
    specs: ["test/layers/libp2p/wire/StreamShares.live.test.ts"]
  },
  {
    name: "a byte keeps the record that it came in",
    file: "src/layers/libp2p/wire/Yamux.ts",
    text: "part.byteLength * 4 <= part.buffer.byteLength",
    replacement: "part.byteLength < 0",
    specs: ["test/layers/libp2p/wire/StreamShares.live.test.ts"]
  },
  {
    name: "a thousand pieces cost no more than one",
    file: "src/layers/libp2p/ByteStream.ts",
    text: "queued + queue.length * pieceBytes",
    replacement: "queued",
    specs: ["test/layers/libp2p/wire/StreamShares.live.test.ts"]
  },
  {
    name: "a reader that took everything is denied a window while its writes wait",
    file: "src/layers/libp2p/wire/Yamux.ts",
    text: "free : unread() === 0 ?",
    replacement: "free : waiting() === 0 ?",
    specs: ["test/layers/libp2p/wire/StreamShares.live.test.ts"]
  },
  {
    name: "a stream that a protocol's bound resets is not in its group",
    file: "src/layers/libp2p/Transport.ts",
    text: "if (groupOf !== undefined) shareOf(stream)",
    replacement: "if (groupOf === undefined) shareOf(stream)",
    specs: ["test/layers/libp2p/Transport.live.test.ts"]
  },
  {
    name: "a reset after the end counts as an end",
    file: "src/layers/libp2p/ByteStream.ts",
    text: "stream.status !== \"reset\" && endedByRemote(stream)",
    replacement: "endedByRemote(stream)",
    specs: ["test/layers/libp2p/Transport.live.test.ts"]
  },
  {
    name: "a clean end loses a stream",
    file: "src/layers/libp2p/ByteStream.ts",
    text: "!isCut && underlying.status === \"open\"",
    replacement: "!isCut && underlying.status === \"open\" && stream.status === \"open\"",
    specs: ["test/layers/libp2p/Transport.live.test.ts"]
  },
  {
    name: "the end of a connection loses no stream",
    file: "src/layers/libp2p/ByteStream.ts",
    text: "    underlying.addEventListener(\"close\", () => watchers.forEach((each) => each()), { once: true })\n",
    replacement: "",
    specs: ["test/layers/libp2p/Transport.live.test.ts"],
    only: "the loss of a stream"
  },
  {
    name: "the end of a connection loses its first stream alone",
    file: "src/layers/libp2p/ByteStream.ts",
    text: "() => watchers.forEach((each) => each())",
    replacement: "look",
    specs: ["test/layers/libp2p/Transport.live.test.ts"],
    only: "is told to each stream of a connection"
  },
  {
    name: "what a name resolves to is not judged",
    file: "src/layers/libp2p/wire/Lookup.ts",
    text: ".filter(({ address }) => judge(address))",
    replacement: "",
    specs: ["test/layers/libp2p/wire/Lookup.live.test.ts"]
  },
  {
    name: "a name leads to any number of addresses",
    file: "src/layers/libp2p/wire/Lookup.ts",
    text: "found.slice(0, resolvedMax)",
    replacement: "found",
    specs: ["test/layers/libp2p/wire/Lookup.live.test.ts"]
  },
  {
    name: "a told name is looked up as the system does",
    file: "src/layers/libp2p/wire/Tcp.ts",
    text: "return Lookup.toldLookup(family, judge, resolve)",
    replacement: "return Lookup.ownLookup(family)",
    specs: ["test/layers/libp2p/wire/Lookup.live.test.ts"]
  },
  {
    name: "an IP address in the part for a name is not judged",
    file: "src/layers/libp2p/wire/Tcp.ts",
    text: "|| isIP(value) !== 0 && !judge(value)",
    replacement: "",
    specs: ["test/layers/libp2p/wire/Lookup.live.test.ts"]
  },
  {
    name: "an IPv6 zone is dialled for others",
    file: "src/layers/libp2p/wire/Tcp.ts",
    text: "!toldProtocols.has(name) ||",
    replacement: "",
    specs: ["test/layers/libp2p/wire/Lookup.live.test.ts"]
  },
  {
    name: "dns6 takes IPv4 addresses",
    file: "src/layers/libp2p/wire/Lookup.ts",
    text: "protocol === \"dns6\" ? 6 : 0",
    replacement: "0",
    specs: ["test/layers/libp2p/wire/Lookup.live.test.ts"]
  },
  {
    name: "a /dnsaddr may ask without end",
    file: "src/layers/libp2p/Dnsaddr.ts",
    text: "questions < questionsMax",
    replacement: "questions < 64 * questionsMax",
    specs: ["test/layers/libp2p/Dnsaddr.test.ts"]
  },
  {
    name: "a /dnsaddr may give any number of addresses",
    file: "src/layers/libp2p/Dnsaddr.ts",
    text: "found.slice(0, addressesMax)",
    replacement: "found",
    specs: ["test/layers/libp2p/Dnsaddr.test.ts"]
  },
  {
    name: "a node's last update of its addresses holds the process",
    file: "src/layers/libp2p/Faults.ts",
    text: "own._updatePeerStoreAddresses.stop()",
    replacement: "void own",
    specs: ["test/live/ending.live.test.ts"]
  },
  {
    name: "a push of identify holds the process",
    file: "src/layers/libp2p/Host.ts",
    text: "identifyPush({ runOnSelfUpdate: false, debounce: 0 })",
    replacement: "identifyPush()",
    specs: ["test/live/ending.live.test.ts"]
  },
  {
    name: "each ping opens a stream",
    file: "src/layers/libp2p/PingStream.ts",
    text: "    kept = line\n",
    replacement: "    void line\n",
    specs: ["test/layers/libp2p/PingStream.live.test.ts"]
  },
  {
    name: "a ping is lost when the remote ends its stream meanwhile",
    file: "src/layers/libp2p/PingStream.ts",
    text: "if (!former.isEndedByRemote() || signal.aborted || !isOpen(connection)) throw cause",
    replacement: "throw cause",
    specs: ["test/layers/libp2p/PingStream.live.test.ts"]
  },
  {
    name: "a stream of pings that has ended is pinged on",
    file: "src/layers/libp2p/PingStream.ts",
    text: "stream.status === \"open\" && stream.writeStatus === \"writable\" && !isEnded",
    replacement: "answers > 0",
    specs: ["test/layers/libp2p/PingStream.live.test.ts"]
  },
  {
    name: "a remote that answers one ping of each stream loses every second ping",
    file: "src/layers/libp2p/PingStream.ts",
    text: "const strikesMax = 2",
    replacement: "const strikesMax = 20",
    specs: ["test/layers/libp2p/PingStream.live.test.ts"]
  },
  {
    name: "what nobody asked for waits for the next ping",
    file: "src/layers/libp2p/PingStream.ts",
    text: "if (question === undefined) return fail(",
    replacement: "if (question === undefined) return void (",
    specs: ["test/layers/libp2p/PingStream.live.test.ts"]
  },
  {
    name: "a single ping leaves its stream open",
    file: "src/layers/libp2p/PingStream.ts",
    text: "if (strikes >= strikesMax) line.close()",
    replacement: "",
    specs: ["test/layers/libp2p/PingStream.live.test.ts"]
  },
  {
    name: "streams of ping count",
    file: "src/layers/libp2p/Connection.ts",
    text: "if (protocol !== PING_PROTOCOL) streams++",
    replacement: "streams += protocol.length > 0 ? 1 : 1",
    specs: ["test/layers/libp2p/Transport.live.test.ts"]
  },
  {
    name: "pings are answered on any number of streams",
    file: "src/layers/libp2p/PingAnswers.ts",
    text: "maxInboundStreams: streamsMax",
    replacement: "maxInboundStreams: 64",
    specs: ["test/layers/libp2p/PingAnswers.live.test.ts"]
  },
  {
    name: "the silence of a stream of pings counts from its opening",
    file: "src/layers/libp2p/PingAnswers.ts",
    text: "    silent.refresh()\n",
    replacement: "",
    specs: ["test/layers/libp2p/PingAnswers.live.test.ts"]
  },
  {
    name: "a stream of pings is never silent for too long",
    file: "src/layers/libp2p/PingAnswers.ts",
    text: "const silent = setTimeout(() => stream.abort(new Error(`no ping for ${silentMillis} ms`)), silentMillis)",
    replacement: "const silent = setTimeout(() => {}, silentMillis)",
    specs: ["test/layers/libp2p/PingAnswers.live.test.ts"]
  },
  {
    name: "pings are answered at any rate",
    file: "src/layers/libp2p/PingAnswers.ts",
    text: "const spacingMillis = 10",
    replacement: "const spacingMillis = 0",
    specs: ["test/layers/libp2p/PingAnswers.live.test.ts"]
  },
  {
    name: "each stream of pings has a rate of its own",
    file: "src/layers/libp2p/PingAnswers.ts",
    text: "const pace = paces.get(connection) ?? makePace()",
    replacement: "const pace = makePace()",
    specs: ["test/layers/libp2p/PingAnswers.live.test.ts"]
  },
  {
    name: "a small piece of a ping costs only its bytes",
    file: "src/layers/libp2p/PingAnswers.ts",
    text: "Math.max(data.byteLength, pingBytes)",
    replacement: "data.byteLength",
    specs: ["test/layers/libp2p/PingAnswers.live.test.ts"]
  },
  {
    name: "pings wait without end for their answers",
    file: "src/layers/libp2p/PingAnswers.ts",
    text: "waitingBytes + stream.writeBufferLength > waitingBytesMax",
    replacement: "waitingBytes < 0",
    specs: ["test/layers/libp2p/PingAnswers.live.test.ts"]
  },
  {
    name: "the end of a stream takes the answers that wait",
    file: "src/layers/libp2p/PingAnswers.ts",
    text: "stream.addEventListener(\"end\", () => later ?? close())",
    replacement: "stream.addEventListener(\"end\", () => close())",
    specs: ["test/layers/libp2p/PingAnswers.live.test.ts"]
  },
  {
    name: "a stream of pings that ended early stays half open",
    file: "src/layers/libp2p/PingAnswers.ts",
    text: "if (stream.readableEnded) close()",
    replacement: "",
    specs: ["test/layers/libp2p/PingAnswers.live.test.ts"]
  },
  {
    name: "a stream that was reset early is watched for a minute",
    file: "src/layers/libp2p/PingAnswers.ts",
    text: "if (stream.status !== \"open\") return",
    replacement: "",
    specs: ["test/layers/libp2p/PingAnswers.live.test.ts"]
  },
  {
    name: "a ping that was given up leaves its stream open",
    file: "src/layers/libp2p/PingStream.ts",
    text: "const onAbort = () => fail(",
    replacement: "const onAbort = () => question?.settle(",
    specs: ["test/layers/libp2p/PingStream.live.test.ts"]
  },
  {
    name: "kad-dht has no pings",
    file: "src/layers/libp2p/PingAnswers.ts",
    text: "own.ping(peer, options)",
    replacement: "Promise.reject(new Error(`no ping of ${String(own) + String(peer) + String(options)}`))",
    specs: ["test/layers/dht/libp2p/KadDht.live.test.ts"],
    only: "takes in a peer that answers"
  }
]
