/**
 * Which log lines are written: a level for everything, and levels for components.
 *
 * `info,dht=debug,libp2p:tcp=trace` writes lines of `dht` from level `debug` on, of all else from `info` on. A
 * component includes those below it: `libp2p:kad-dht` includes `libp2p:kad-dht:query`; the longest name that fits
 * decides. Components of libp2p are silent unless they are named (`libp2p` names all of them), because libp2p reports
 * each failed dial as an error.
 */
import { LogLevel, Result, Schema } from "effect"
import { shortened } from "./Canonical.ts"
import { type Judgement, judgeUnknown } from "./OptionTable.ts"

/** The lowest level to log, in general and for each named component. */
export interface LogFilter {
  /** The level of components that are not named. */
  readonly fallback: LogLevel.LogLevel
  readonly components: ReadonlyMap<string, LogLevel.LogLevel>
}

/**
 * Reads a filter; the failure is one line. The general level defaults to `info`. Of two entries for one component the
 * later counts.
 */
export const parse = (text: string): Result.Result<LogFilter, string> => {
  let fallback: LogLevel.LogLevel = "Info"
  const components = new Map<string, LogLevel.LogLevel>()
  if (typeof text !== "string") return Result.fail(`expected a text such as "info,dht=debug", got ${shortened(text)}`)
  for (const entry of text.split(",").map((part) => part.trim())) {
    if (entry === "") continue
    const [, component, name] = /^(?:([^=\s]+)\s*=\s*)?([a-zA-Z]+)$/.exec(entry) ?? []
    const level = name === undefined ? undefined : levels.get(name.toLowerCase())
    if (level === undefined) {
      return Result.fail(
        `expected a level or component=level, as in "info,dht=debug,libp2p:tcp=trace", got "${entry}"; levels are ${
          [...levels.keys()].join(", ")
        }`
      )
    }
    if (component === undefined) fallback = level
    else components.set(component, level)
  }
  return Result.succeed({ fallback, components })
}

/** The components of this library that log. A program may have its own. */
export const components: ReadonlyArray<string> = [
  "bootstrap",
  "codio",
  "connections",
  "data-directory",
  "dht",
  "identity",
  "libp2p",
  "mdns",
  "network",
  "options",
  "peer-store",
  "protocols",
  "relay"
]

/**
 * The components of libp2p that log below `libp2p`. What a connection logs, its muxer and its streams included, is
 * below the component of its transport, as in `libp2p:tcp:connection`.
 */
export const libp2pComponents: ReadonlyArray<string> = [
  "address-manager",
  "circuit-relay",
  "codio",
  "connection-manager",
  "dcutr",
  "identify",
  "identify-push",
  "kad-dht",
  "mdns",
  "noise",
  "peer-routing",
  "peer-store",
  "random-walk",
  "reconnect-queue",
  "registrar",
  "tcp",
  "transports"
].map((name) => `libp2p:${name}`)

/** Judges the components of a filter that nothing here logs by: a mistake, or a program's own. */
export const judge = (filter: LogFilter): Judgement => {
  const known = [...components.filter((name) => name !== "libp2p"), ...libp2pComponents]
  const unknown = [...filter.components.keys()].filter((name) =>
    name !== "libp2p" && !known.some((component) => covers(component, name))
  )
  return judgeUnknown([...components, ...libp2pComponents], unknown, "log component")
}

/**
 * The text of a filter. Refuses one that {@link parse} cannot read, with its message, and a mistaken component.
 */
export const LogFilterText = Schema.String.check(
  Schema.makeFilter((text) =>
    Result.match(parse(text), {
      onFailure: (problem) => problem,
      onSuccess: (filter) => judge(filter).problems.join("; ") || true
    })
  )
)

/** The lowest level that is written for a component. */
export const minimum = (filter: LogFilter, component: string): LogLevel.LogLevel => {
  for (let name = component; name !== ""; name = name.slice(0, Math.max(0, name.lastIndexOf(":")))) {
    const level = filter.components.get(name)
    if (level !== undefined) return level
  }
  return covers("libp2p", component) ? "None" : filter.fallback
}

/** Whether anything is written for the component or for one below it. */
export const mentions = (filter: LogFilter, component: string): boolean =>
  minimum(filter, component) !== "None" ||
  [...filter.components].some(([name, level]) => level !== "None" && covers(component, name))

/** The lowest level that is written for any component. */
export const lowest = (filter: LogFilter): LogLevel.LogLevel =>
  [...filter.components.values()].reduce((a, b) => LogLevel.isLessThan(b, a) ? b : a, filter.fallback)

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const levels = new Map<string, LogLevel.LogLevel>([
  ["all", "All"],
  ["trace", "Trace"],
  ["debug", "Debug"],
  ["info", "Info"],
  ["warn", "Warn"],
  ["error", "Error"],
  ["fatal", "Fatal"],
  ["none", "None"]
])

const covers = (component: string, name: string): boolean => name === component || name.startsWith(`${component}:`)
