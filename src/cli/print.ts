/**
 * The program's output: readable lines for people, or with `--json` one object per line.
 */
import { Duration } from "effect"
import { plain } from "../schema/Json.ts"
import type { NetworkEvent } from "../schema/NetworkEvent.ts"
import type { Multiaddr, Path, PeerId } from "../schema/Peer.ts"

/** What is printed on stdout: that the node started, what happens in it, and that it stopped. */
export type Report =
  | { readonly _tag: "Started"; readonly peer: PeerId; readonly addresses: ReadonlyArray<Multiaddr> }
  | NetworkEvent
  | { readonly _tag: "Stopped" }

/**
 * One JSON object: `event` is the kind of report in lower case with dashes, such as `peer-connected`; `time` is ISO
 * 8601; a duration is a number of milliseconds under a name that ends in `Millis`, also within a field.
 */
export const jsonLine = (time: Date, { _tag, ...fields }: Report): string => {
  return JSON.stringify({ event: kebab(_tag), time: time.toISOString(), ...plain(fields) })
}

/** Readable lines; none for reports that matter only to programs. */
export const textLines = (time: Date, report: Report): ReadonlyArray<string> => {
  const at = time.toTimeString().slice(0, 8)
  switch (report._tag) {
    case "Started":
      return [
        `peer id    ${report.peer}`,
        ...report.addresses.map((address, n) => `${n === 0 ? "listening" : "         "}  ${address}`)
      ]
    case "PeerConnected":
      return [`${at}  connected     ${report.peer}  ${report.address}  ${report.direction}, ${report.interest}`]
    case "PeerIdentified":
      return [`${at}  identified    ${report.peer}  ${printable(report.agentVersion) || "unnamed agent"}`]
    case "PeerPathChanged":
      return [`${at}  path changed  ${report.peer}  ${showPath(report.from)} to ${showPath(report.to)}`]
    case "PeerDisconnected": {
      const reason = report.remoteReason === undefined ? report.reason : `${report.reason} (${report.remoteReason})`
      return [`${at}  disconnected  ${report.peer}  ${reason}, after ${showDuration(report.connectionDuration)}`]
    }
    case "PeerUnhealthy":
      return [`${at}  no answer     ${report.peer}  ${report.misses} in a row`]
    case "DialFailed":
      return [`${at}  not reached   ${report.target}  ${printable(report.message)}`]
    case "ReconnectFailed":
      return [`${at}  given up      ${report.peer}  after ${report.attempts} attempts`]
    case "RelayReserved":
      return [
        `${at}  relayed by    ${report.relay}`,
        ...report.addresses.map((address) => `${" ".repeat(24)}${address}`)
      ]
    case "RelayLost":
      return [`${at}  relay lost    ${report.relay}`]
    case "IsolationChanged":
      return [
        report.isolated
          ? `${at}  isolated      nobody is connected; trying ${report.candidates} known peers`
          : `${at}  not isolated any more`
      ]
    case "Stopped":
      return [`${at}  stopped`]
    case "PeerDiscovered":
    case "PeerRefused":
    case "ReconnectScheduled":
      return []
  }
}

/** The text on one line, without control characters, by which a remote could command the terminal. */
export const printable = (text: string): string => text.replace(/\s+/g, " ").replace(/\p{C}/gu, "?").trim()

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

function showPath(path: Path): string {
  if (path._tag === "Direct") return path.holePunched ? "direct, by a punched hole" : "direct"
  const limits = [
    ...(path.bytesLeft === undefined ? [] : [`${path.bytesLeft} bytes`]),
    ...(path.timeLeft === undefined ? [] : [showDuration(path.timeLeft)])
  ]
  return `relayed by ${path.relay}${limits.length === 0 ? "" : ` (${limits.join(" and ")} left)`}`
}

const kebab = (tag: string): string => tag.replace(/(?<=[a-z])[A-Z]/g, (letter) => `-${letter}`).toLowerCase()

// Above a second in whole seconds: the nanoseconds of a lost connection help nobody.
function showDuration(duration: Duration.Duration): string {
  const millis = Duration.toMillis(duration)
  return Duration.format(Duration.millis(millis < 1000 ? Math.round(millis) : Math.round(millis / 1000) * 1000))
}
