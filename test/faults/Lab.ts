/**
 * The hosts of a scenario: network namespaces on one switch, a bridge in a namespace of its own, which holds the rules
 * for their cables.
 */
import { Effect, type Scope } from "effect"
import * as Cable from "./Cable.ts"
import { command, Machine, removeNamespace } from "./Machine.ts"

export interface Lab {
  /** A host on the switch, with the next address. Its cable is short by default. */
  readonly host: (name: string, cable?: Cable.Length) => Effect.Effect<Host, never, Machine | Scope.Scope>
}

/** Faults of a host last as long as their scope. */
export interface Host {
  readonly namespace: string
  /** The first address of the host. */
  readonly address: string
  /** Nothing passes in either direction, in silence. */
  readonly silent: Effect.Effect<void, never, Scope.Scope>
  /** So many of a hundred packets to it are lost. */
  readonly lossy: (percent: number) => Effect.Effect<void, never, Scope.Scope>
  /** The cable is out: no carrier. */
  readonly unplugged: Effect.Effect<void, never, Scope.Scope>
  /** Gives the host this address instead of its former one. */
  readonly readdress: (address: string) => Effect.Effect<void>
  /** How many TCP connections are established there. */
  readonly connections: Effect.Effect<number>
  /** Drops inbound packets that answer nothing, as a NAT router does. */
  readonly firewalled: Effect.Effect<void, never, Scope.Scope>
}

/**
 * A network without hosts. Its addresses are public by default, since libp2p leaves private addresses out of some
 * answers.
 */
export const make = Effect.fnUntraced(function*(
  network = "44.0.0"
): Effect.fn.Return<Lab, never, Machine | Scope.Scope> {
  const { count, prefix } = yield* Machine
  const lab = `${prefix}-${yield* count}`
  const middle = yield* namespace(`${lab}-switch`)
  yield* ip(middle, "link", "add", "br0", "type", "bridge")
  yield* ip(middle, "link", "set", "br0", "up")
  let hosts = 0

  const host = Effect.fnUntraced(function*(
    name: string,
    cable?: Cable.Length
  ): Effect.fn.Return<Host, never, Machine | Scope.Scope> {
    const number = ++hosts
    const port = `port${number}`
    const own = yield* namespace(`${lab}-${name}`)
    yield* ip(own, "link", "set", "lo", "up")
    yield* cable !== undefined
      ? Cable.make({ namespace: own, device: "e0" }, { namespace: middle, device: port }, cable)
      : command("ip", ["link", "add", "e0", "netns", own, "type", "veth", "peer", "name", port, "netns", middle])
    yield* ip(middle, "link", "set", port, "master", "br0", "up")
    yield* ip(own, "link", "set", "e0", "up")
    let address = `${network}.${number}`
    // All hosts are on the link; multicast needs a default route.
    const addAddress = Effect.suspend(() =>
      Effect.andThen(
        ip(own, "addr", "add", `${address}/24`, "dev", "e0"),
        ip(own, "route", "replace", "default", "dev", "e0")
      )
    )
    yield* addAddress

    /** Rules for frames that pass the switch's port of this host. */
    const onPort = (name: string, ...rules: ReadonlyArray<string>) =>
      table(middle, "bridge", `${name}${number}`, [
        `chain c { type filter hook forward priority 0; ${rules.join("; ")}; }`
      ])

    return {
      namespace: own,
      address,
      silent: onPort("silent", `iifname "${port}" drop`, `oifname "${port}" drop`),
      lossy: (percent) => onPort("lossy", `oifname "${port}" numgen random mod 100 < ${percent} drop`),
      unplugged: Effect.asVoid(Effect.acquireRelease(
        ip(middle, "link", "set", port, "down"),
        () => ip(middle, "link", "set", port, "up")
      )),
      readdress: (next) =>
        Effect.gen(function*() {
          yield* ip(own, "addr", "del", `${address}/24`, "dev", "e0")
          address = next
          yield* addAddress
        }),
      connections: command("ip", ["netns", "exec", own, "ss", "-Htn", "state", "established"]).pipe(
        Effect.map((lines) => lines.split("\n").filter((line) => line !== "").length)
      ),
      firewalled: table(own, "inet", "firewall", [
        `chain c { type filter hook input priority 0; iifname "e0" ct state established,related accept; iifname "e0" drop; }`
      ])
    }
  })
  return { host }
})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** A network namespace for as long as the scope lives. */
function namespace(name: string): Effect.Effect<string, never, Scope.Scope> {
  return Effect.acquireRelease(Effect.as(command("ip", ["netns", "add", name]), name), removeNamespace)
}

/** Changes links and addresses in a namespace. */
function ip(namespace: string, ...args: ReadonlyArray<string>): Effect.Effect<void> {
  return Effect.asVoid(command("ip", ["-n", namespace, ...args]))
}

/** A table of nftables while the scope lives. nft 1.0 wants a brace that ends a chain on a line of its own. */
function table(namespace: string, family: string, name: string, chains: ReadonlyArray<string>) {
  const nft = (script: string) => Effect.asVoid(command("ip", ["netns", "exec", namespace, "nft", "-f", "-"], script))
  return Effect.acquireRelease(
    nft(`table ${family} ${name} {\n${chains.join("\n")}\n}\n`),
    () => nft(`delete table ${family} ${name}\n`)
  )
}
