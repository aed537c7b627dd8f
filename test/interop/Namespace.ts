/**
 * A network of its own for one part of the suite: no interface but loopback, which has a public address. Peers tell no
 * private addresses when they look for a direct way.
 */
import { Effect } from "effect"
import { spawn, spawnSync } from "node:child_process"
import { createInterface } from "node:readline"
import type { Cell } from "./Matrix.ts"

/** The public address. Nothing is routed to it from outside. */
export const publicAddress = "44.0.0.1"

const setUp = `ip link set lo up && ip address add ${publicAddress}/32 dev lo`

/** Why this machine cannot make such a network; undefined when it can. */
export const lacks = (): string | undefined =>
  spawnSync("unshare", ["--net", "sh", "-c", setUp], { stdio: "ignore" }).status === 0
    ? undefined
    : "it permits no network namespace"

/** Runs parts of the suite in the namespace, and gives their cells. */
export const inside = (program: string, parts: ReadonlyArray<string>): Effect.Effect<ReadonlyArray<Cell>, Error> =>
  Effect.callback((resume) => {
    const cells: Array<Cell> = []
    const script = `${setUp} && exec "$@"`
    const args = ["--net", "sh", "-c", script, "sh", process.execPath, program, "--inside", ...parts]
    const child = spawn("unshare", args, { stdio: ["ignore", "pipe", "inherit"] })
    createInterface({ input: child.stdout }).on("line", (line) => {
      if (line.startsWith("{")) cells.push(JSON.parse(line) as Cell)
      else console.log(line)
    }).on("close", () => resume(Effect.succeed(cells)))
    child.on("error", (cause) => resume(Effect.fail(cause)))
    return Effect.sync(() => child.kill())
  })
