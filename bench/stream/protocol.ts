/**
 * What the two sides of the benchmark agree on. Each side is a server process and a client process; `run.ts` tells the
 * client which row to run.
 */

/** A row: the measurement that the client is asked for. */
export type Row = "upload" | "download" | "fresh" | "long" | "dial"

/** Messages between `run.ts` and the processes. `cpu` asks for the milliseconds of processor time used so far. */
type ToProcess = { readonly row: Row | "cpu" }
export type FromServer = { readonly address: string }
export type FromProcess = { readonly ready: true } | { readonly value: number } | { readonly problem: string }

/** Reads to the end, then answers one byte. */
export const sink = "/bench/sink/1.0.0"
/** Sends `bulkBytes` and ends. */
export const source = "/bench/source/1.0.0"
/** Sends back what comes. */
export const echo = "/bench/echo/1.0.0"

export const bulkBytes = 128 * 1024 * 1024
export const chunk = new Uint8Array(64 * 1024).map((_, index) => index)
export const request = new Uint8Array(1024).map((_, index) => index)
export const freshRequests = 300
export const longRequests = 3000
export const dials = 20

/** Answers a client's rows to `run.ts`, one at a time, until it goes away. */
export const serveRows = (rows: { readonly [_ in Row]: () => Promise<number> }): void => {
  answer((row) => rows[row]())
  report({ ready: true })
}

/** Tells `run.ts` where the server listens, and answers for its processor time until `run.ts` goes away. */
export const serveAddress = (address: string): void => {
  answer(() => Promise.reject(new Error("a server runs no rows")))
  report({ address })
}

/** Seconds that a measurement took. */
export const timed = async (run: () => Promise<unknown>): Promise<number> => {
  const began = performance.now()
  await run()
  return (performance.now() - began) / 1000
}

// internal ------------------------------------------------------------------------------------------------------------

function answer(run: (row: Row) => Promise<number>): void {
  process.on("message", ({ row }: ToProcess) => {
    const result = row === "cpu" ? Promise.resolve(cpuMillis()) : run(row)
    result.then(
      (value) => report({ value }),
      (error) => report({ problem: error instanceof Error ? error.stack ?? error.message : String(error) })
    )
  })
  process.on("disconnect", () => process.exit(0))
}

function cpuMillis(): number {
  const { system, user } = process.cpuUsage()
  return (user + system) / 1000
}

function report(message: FromServer | FromProcess): void {
  process.send?.(message)
}
