import type { Mutant } from "./Mutant.ts"

export const schemaMutants: ReadonlyArray<Mutant> = [
  {
    name: "a header of /codio/1.0.0 may have one byte more",
    file: "src/schema/CodioMessage.ts",
    text: "length > headerBytesMax",
    replacement: "length > headerBytesMax + 1",
    specs: ["test/schema/CodioMessage.test.ts"]
  },
  {
    name: "a header may be nested one level deeper",
    file: "src/schema/CodioMessage.ts",
    text: "open.length > headerDepthMax",
    replacement: "open.length > headerDepthMax + 1",
    specs: ["test/schema/CodioMessage.test.ts"]
  },
  {
    name: "a list that has ended keeps its level",
    file: "src/schema/CodioMessage.ts",
    text: "while (open.length > 0 && open[open.length - 1]! <= 0) open.pop()",
    replacement: "",
    specs: ["test/schema/CodioMessage.test.ts"]
  },
  {
    name: "a list without a length keeps its level",
    file: "src/schema/CodioMessage.ts",
    text: "if (Type.equals(type, Type.break)) open.pop()",
    replacement: "if (Type.equals(type, Type.break)) open.length += 0",
    specs: ["test/schema/CodioMessage.test.ts"]
  },
  {
    name: "a peer id written as a CID is refused",
    file: "src/schema/Canonical.ts",
    text: "cid !== undefined && cid.code === libp2pKey && isOfKey(cid.multihash)",
    replacement: "cid !== undefined && cid.code === 0 && isOfKey(cid.multihash)",
    specs: ["test/schema/Canonical.test.ts", "test/sim/names.test.ts"]
  },
  {
    name: "the CID of content passes for a peer id",
    file: "src/schema/Canonical.ts",
    text: "cid.code === libp2pKey && isOfKey",
    replacement: "isOfKey",
    specs: ["test/schema/Canonical.test.ts"]
  },
  {
    name: "ids within an address stay as they were written",
    file: "src/schema/Canonical.ts",
    text: "parse(read.bytes).toString()",
    replacement: "read.toString()",
    specs: ["test/schema/Canonical.test.ts"]
  },
  {
    name: "white space within an address passes",
    file: "src/schema/Canonical.ts",
    text: "|| /[\\s\\p{Cc}]/u.test(address)",
    replacement: "",
    specs: ["test/schema/Canonical.test.ts"]
  },
  {
    name: "base58 text wins over a CID",
    file: "src/schema/Canonical.ts",
    text: "const cid = cidOf(key)",
    replacement: "const cid = /^[bk]/.test(key) ? undefined : cidOf(key)",
    specs: ["test/schema/Canonical.test.ts"]
  },
  {
    name: "a text of any length is read",
    file: "src/schema/Canonical.ts",
    text: "return text.length > textMax",
    replacement: "return text.length > 1e9",
    specs: ["test/schema/Canonical.test.ts"]
  },
  {
    name: "an address of another peer passes",
    file: "src/schema/Peer.ts",
    text: "if (named !== undefined && named !== id.success) {",
    replacement: "if (named !== undefined && named === \"\") {",
    specs: ["test/schema/Canonical.test.ts"]
  },
  {
    name: "a relay without a peer behind it passes",
    file: "src/schema/Peer.ts",
    text: "Result.flatMap(readMultiaddr(text), (address) =>\n    address.endsWith(\"/p2p-circuit\")",
    replacement: "Result.flatMap(readMultiaddr(text), (address) =>\n    address.endsWith(\"/nothing\")",
    specs: ["test/schema/Canonical.test.ts"]
  },
  {
    name: "options above the option that bounds them pass",
    file: "src/schema/OptionTable.ts",
    text: "return value > most ?",
    replacement: "return value > most + 1 ?",
    specs: ["test/services/NetworkConfig.test.ts"]
  },
  {
    name: "three edits make a mistake",
    file: "src/schema/OptionTable.ts",
    text: "const editsMax = 2",
    replacement: "const editsMax = 3",
    specs: ["test/services/NetworkConfig.test.ts"]
  },
  {
    name: "one edit makes a mistake, two do not",
    file: "src/schema/OptionTable.ts",
    text: "const editsMax = 2",
    replacement: "const editsMax = 1",
    specs: ["test/services/NetworkConfig.test.ts"]
  },
  {
    name: "swapped letters count twice",
    file: "src/schema/OptionTable.ts",
    text: "? before[j - 2]! + 1 : replaced",
    replacement: "? replaced : replaced",
    specs: ["test/cli/codio.live.test.ts"]
  },
  {
    name: "a mistaken variable is a warning",
    file: "src/schema/OptionTable.ts",
    text: "if (near === undefined) warnings.push(",
    replacement: "if (near !== \"\") warnings.push(",
    specs: ["test/services/NetworkConfig.test.ts"]
  },
  {
    name: "a duration of 25 days passes",
    file: "src/schema/OptionTable.ts",
    text: "Duration.toMillis(\"24 days\")",
    replacement: "Duration.toMillis(\"25 days\")",
    specs: ["test/services/NetworkConfig.test.ts"]
  },
  {
    name: "a minute in short is a second",
    file: "src/schema/OptionTable.ts",
    text: "m: 60_000",
    replacement: "m: 1_000",
    specs: ["test/services/NetworkConfig.test.ts"]
  },
  {
    name: "a port beside other listen addresses is passed over",
    file: "src/schema/NetworkOptions.ts",
    text: "if (listenPort !== 0 && !listenAddresses",
    replacement: "if (listenPort < 0 && !listenAddresses",
    specs: ["test/services/NetworkConfig.test.ts"]
  },
  {
    name: "relay peers without relays are passed over",
    file: "src/schema/NetworkOptions.ts",
    text: "if (relayPeers.length > 0)",
    replacement: "if (relayPeers.length > 9)",
    specs: ["test/services/NetworkConfig.test.ts"]
  },
  {
    name: "as many kept peers as slots are refused",
    file: "src/schema/NetworkOptions.ts",
    text: "if (kept > maxPeers)",
    replacement: "if (kept >= maxPeers)",
    specs: ["test/services/NetworkConfig.test.ts"]
  },
  {
    name: "addresses given in code stay as they are written",
    file: "src/schema/OptionTable.ts",
    text: "texts.map((text) => Result.getOrElse(readMultiaddr(text), () => text))",
    replacement: "texts",
    specs: ["test/services/NetworkConfig.test.ts"]
  },
  {
    name: "an address with port 0 is announced",
    file: "src/schema/OptionTable.ts",
    text: "/\\/tcp\\/0(?:\\/|$)/.test(address)",
    replacement: "address === \"\"",
    specs: ["test/services/NetworkConfig.test.ts"]
  },
  {
    name: "a mistaken log component passes",
    file: "src/schema/LogFilter.ts",
    text: "judge(filter).problems.join(\"; \") || true",
    replacement: "true",
    specs: ["test/schema/LogFilter.test.ts", "test/cli/codio.live.test.ts"]
  },
  {
    name: "a component that logs nothing is known",
    file: "src/schema/LogFilter.ts",
    text: "  \"transports\"\n]",
    replacement: "  \"transports\",\n  \"yamux\"\n]",
    specs: ["test/schema/LogFilter.test.ts"]
  },
  {
    name: "the budget is a quarter of the host's memory in a container",
    file: "src/schema/NetworkOptions.ts",
    text: "Math.min(granted, total)",
    replacement: "total",
    specs: ["test/services/NetworkConfig.test.ts"]
  },
  {
    name: "an address of the DHT becomes the program's own",
    file: "src/schema/Peer.ts",
    text: "text === one ? address.success",
    replacement: "text !== undefined ? address.success",
    specs: ["test/schema/Canonical.test.ts"]
  },
  {
    name: "an object says itself who told it",
    file: "src/schema/Peer.ts",
    text: "tellersOfFound.get(one as object) ?? []",
    replacement: "tellersOfFound.get(one as object) ?? (one as { tellers?: [] }).tellers ?? []",
    specs: ["test/schema/Canonical.test.ts"]
  },
  {
    name: "6to4 is an address like others",
    file: "src/schema/Reach.ts",
    text: "if (a === 0x2002) return",
    replacement: "if (a === 0x2003) return",
    specs: ["test/services/AddressGuard.test.ts"]
  },
  {
    name: "NAT64 is an address like others",
    file: "src/schema/Reach.ts",
    text: "a === 0x64 && b === 0xff9b",
    replacement: "a === 0x64 && b === 0xff9c",
    specs: ["test/services/AddressGuard.test.ts"]
  },
  {
    name: "translated addresses are like others",
    file: "src/schema/Reach.ts",
    text: "|| e === 0xffff && f === 0",
    replacement: "",
    specs: ["test/services/AddressGuard.test.ts"]
  },
  {
    name: "ISATAP is an address like others",
    file: "src/schema/Reach.ts",
    text: "f === 0x5efe && (e === 0 || e === 0x200) ? [ip, last()] : [ip]",
    replacement: "[ip]",
    specs: ["test/services/AddressGuard.test.ts"]
  },
  {
    name: "an IPv4-compatible address is like others",
    file: "src/schema/Reach.ts",
    text: "(f === 0 || f === 0xffff)",
    replacement: "(f === 0xffff)",
    specs: ["test/services/AddressGuard.test.ts"]
  },
  {
    name: "shared addresses of providers are public",
    file: "src/schema/Reach.ts",
    text: "  \"100.64.0.0/10\",\n",
    replacement: "",
    specs: ["test/services/AddressGuard.test.ts"]
  },
  {
    name: "documentation is public",
    file: "src/schema/Reach.ts",
    text: "  \"3fff::/20\"\n",
    replacement: "  \"3fff::/21\"\n",
    specs: ["test/services/AddressGuard.test.ts"]
  },
  {
    name: "what IANA has not given out is public",
    file: "src/schema/Reach.ts",
    text: "  \"4000::/2\",\n",
    replacement: "",
    specs: ["test/services/AddressGuard.test.ts"]
  },
  {
    name: "the public parts of the protocol range are local",
    file: "src/schema/Reach.ts",
    text: "  \"2001:20::/28\",\n",
    replacement: "",
    specs: ["test/services/AddressGuard.test.ts"]
  },
  {
    name: "an IP address in the part for a name is a name",
    file: "src/schema/Reach.ts",
    text: "return Result.isFailure(ip) && isName(host) ?",
    replacement: "return isName(host) ?",
    specs: ["test/services/AddressGuard.test.ts"]
  },
  {
    name: "localhost is a name",
    file: "src/schema/Reach.ts",
    text: "!/^(?:.+\\.)?localhost\\.?$/i.test(text)",
    replacement: "true",
    specs: ["test/services/AddressGuard.test.ts"]
  },
  {
    name: "any form of address may be told",
    file: "src/schema/Reach.ts",
    text: "if (protocol === undefined ||",
    replacement: "if (protocol === undefined) return \"name\"\n  if (",
    specs: ["test/services/AddressGuard.test.ts"]
  },
  {
    name: "a relayed address needs no relay",
    file: "src/schema/Reach.ts",
    text: "|| behind !== undefined && peer === undefined",
    replacement: "",
    specs: ["test/services/AddressGuard.test.ts"]
  },
  {
    name: "a relay may lie behind a relay",
    file: "src/schema/Reach.ts",
    text: "if (more.length > 0 ||",
    replacement: "if (",
    specs: ["test/services/AddressGuard.test.ts"]
  },
  {
    name: "a value that is no text kills the call when it is shown",
    file: "src/schema/Canonical.ts",
    text: "(typeof text === \"string\" ? text : printed(text))",
    replacement: "String(text)",
    specs: ["test/sim/arguments.test.ts"]
  },
  {
    name: "an object that prints nothing kills the call when it is shown",
    file: "src/schema/Canonical.ts",
    text: "JSON.stringify(value) ?? \"an object\"",
    replacement: "JSON.stringify(value)",
    specs: ["test/schema/Canonical.test.ts"]
  },
  {
    name: "a function is shown as its source",
    file: "src/schema/Canonical.ts",
    text: "typeof value === \"function\"",
    replacement: "typeof value === \"symbol\"",
    specs: ["test/schema/Canonical.test.ts"]
  },
  {
    name: "a target without addresses is taken for a wrong id",
    file: "src/schema/Peer.ts",
    text: "!Array.isArray(target.addresses)",
    replacement: "false",
    specs: ["test/sim/arguments.test.ts"]
  },
  {
    name: "undefined has the key of the empty text",
    file: "src/schema/Content.ts",
    text: "if (typeof text !== \"string\") throw wrong",
    replacement: "if (text === null) throw wrong",
    specs: ["test/sim/arguments.test.ts"]
  },
  {
    name: "options that are no object are the defaults",
    file: "src/schema/NetworkOptions.ts",
    text: "objectProblem(\"an object of options such as { listenPort: 4001 }\", inputs) ??",
    replacement: "",
    specs: ["test/sim/arguments.test.ts"]
  },
  {
    name: "what is no bytes is written",
    file: "src/schema/NetworkError.ts",
    text: "Predicate.isUint8Array(chunk) ? undefined",
    replacement: "chunk !== null ? undefined",
    specs: ["test/testing/ports/SimTransport.test.ts"]
  },
  {
    name: "a namespace without an order is made",
    file: "src/schema/ValueNamespace.ts",
    text: "typeof order !== \"function\"",
    replacement: "order === \"function\"",
    specs: ["test/sim/arguments.test.ts"]
  },
  {
    name: "a filter that is no text kills the reader",
    file: "src/schema/LogFilter.ts",
    text: "typeof text !== \"string\"",
    replacement: "text === \"string\"",
    specs: ["test/sim/arguments.test.ts"]
  }
]
