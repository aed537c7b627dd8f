/**
 * `npm run bench`: plain js-libp2p against this library, two processes each over loopback, interleaved in one run.
 * Prints medians of five and their ratios; above 1 ours is the faster. Asserts nothing: the figures of one machine say
 * little about another, the ratios more, and on a busy machine the processor time, of both processes together, more
 * than the clock.
 */
import { type ChildProcess, fork, type ForkOptions, spawnSync } from "node:child_process"
import { once } from "node:events"
import { cpus } from "node:os"
import { join } from "node:path"
import type { FromProcess, FromServer, Row } from "./protocol.ts"

const rounds = 5
const sides = ["plain", "ours"] as const
type Side = typeof sides[number]

/**
 * The programs whose start is measured, until they print where they listen. Each runs as its user runs it: `codio` is a
 * bundle, the library and js-libp2p are modules.
 */
const starts = {
  program: {
    plain: ["../start/plain.mjs"],
    ours: ["../../dist/cli/bin.js", "start", "--listen-address", "/ip4/127.0.0.1/tcp/0"]
  },
  library: { plain: ["../start/plain-effect.mjs"], ours: ["../start/ours.mjs"] }
} as const

const rows: ReadonlyArray<{
  readonly row: Row | keyof typeof starts
  readonly label: string
  readonly unit: string
}> = [
  { row: "upload", label: "one stream, client to server", unit: "MiB/s" },
  { row: "download", label: "one stream, server to client", unit: "MiB/s" },
  { row: "fresh", label: "1 KiB requests, a stream each", unit: "1/s" },
  { row: "long", label: "1 KiB requests on one stream", unit: "1/s" },
  { row: "dial", label: "dial and identify", unit: "1/s" },
  { row: "program", label: "start: the program codio", unit: "1/s" },
  { row: "library", label: "start: a program that uses effect", unit: "1/s" }
]

const build = spawnSync(process.execPath, [join(import.meta.dirname, "../../scripts/build.mjs")], { stdio: "inherit" })
if (build.status !== 0) process.exit(build.status ?? 1)

const children: Array<ChildProcess> = []
process.on("exit", () => {
  for (const child of children) child.kill("SIGKILL")
})

const clients = {} as Record<Side, ChildProcess>
const servers = {} as Record<Side, ChildProcess>
for (const side of sides) {
  servers[side] = start(`${side}.ts`, ["server"])
  const { address } = await message<FromServer>(servers[side])
  clients[side] = start(`${side}.ts`, ["client", address])
  await message<FromProcess>(clients[side])
}

interface Result {
  readonly value: number
  readonly cpu: number
}
const results = new Map(rows.map(({ row }) => [row, { plain: [] as Array<Result>, ours: [] as Array<Result> }]))
console.log(
  `Node ${process.version}, ${cpus().length} cores. Plain js-libp2p with the same modules; each side ${rounds} times after one to warm up\n`
)
for (let round = 0; round <= rounds; round++) {
  process.stderr.write(round === 0 ? "warming up ..." : ` ${round} of ${rounds} ...`)
  for (const { row } of rows) {
    // The order alternates, so that neither side always runs after the other.
    for (const side of round % 2 === 0 ? sides : sides.toReversed()) {
      const value = row in starts
        ? await measureStart(starts[row as keyof typeof starts][side])
        : await measure(side, row as Row)
      if (round > 0) results.get(row)![side].push(value)
    }
  }
}
process.stderr.write("\n\n")

console.log(line("", "plain", "ours", "", "ours / plain  lowest, highest   cpu plain / ours"))
for (const { label, row, unit } of rows) {
  const { ours, plain } = results.get(row)!
  const [was, is] = [plain, ours].map((results) => median(results.map(({ value }) => value)))
  const spread = ours.map(({ value }, index) => value / plain[index]!.value).sort((a, b) => a - b)
  const cpu = median(plain.map(({ cpu }) => cpu)) / median(ours.map(({ cpu }) => cpu))
  const ratios = `${(is! / was!).toFixed(2).padStart(8)}      ${spread[0]!.toFixed(2)} to ${
    spread.at(-1)!.toFixed(2)
  }     ${cpu.toFixed(2).padStart(8)}`
  console.log(line(label, show(was!), show(is!), unit, ratios))
}
process.exit(0)

// internal ------------------------------------------------------------------------------------------------------------

function start(file: string, args: ReadonlyArray<string>, options: ForkOptions = {}): ChildProcess {
  const stdio = options.stdio ?? ["ignore", "inherit", "inherit", "ipc"]
  const child = fork(join(import.meta.dirname, file), args, { ...options, stdio })
  child.once("exit", (code) => {
    if (code === null || code === 0) return
    console.error(`${file} ${args[0] ?? ""}: exit code ${code}`)
    process.exit(1)
  })
  children.push(child)
  return child
}

async function message<A>(child: ChildProcess): Promise<A> {
  const signal = AbortSignal.timeout(60_000)
  const [received] = await once(child, "message", { signal }).catch(() => {
    throw new Error(`${child.spawnargs.slice(1).join(" ")}: no answer within a minute`)
  })
  return received
}

async function ask(child: ChildProcess, row: Row | "cpu"): Promise<number> {
  const answer = message<FromProcess>(child)
  child.send({ row })
  const result = await answer
  if ("value" in result) return result.value
  throw new Error(`${row}: ${"problem" in result ? result.problem : "no result"}`)
}

async function measure(side: Side, row: Row): Promise<Result> {
  const cpu = async () => (await ask(clients[side], "cpu")) + (await ask(servers[side], "cpu"))
  const before = await cpu()
  const value = await ask(clients[side], row)
  return { value, cpu: (await cpu()) - before }
}

async function measureStart([file, ...args]: readonly [string, ...ReadonlyArray<string>]): Promise<Result> {
  const began = performance.now()
  const child = start(file, args, {
    execArgv: ["--import", new URL("../start/started.mjs", import.meta.url).href],
    stdio: ["ignore", "ignore", "inherit", "ipc"]
  })
  const cpu = await message<{ readonly value: number }>(child)
  const seconds = (performance.now() - began) / 1000
  const gone = once(child, "exit")
  child.kill("SIGKILL")
  await gone
  children.splice(children.indexOf(child), 1)
  return { value: 1 / seconds, cpu: cpu.value }
}

function median(values: ReadonlyArray<number>): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!
}

function show(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toFixed(1)
}

function line(label: string, plain: string, ours: string, unit: string, ratio: string): string {
  return `${label.padEnd(34)}${plain.padStart(8)}${ours.padStart(8)} ${unit.padEnd(6)}  ${ratio}`
}
