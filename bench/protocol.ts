/**
 * What the two sides of the benchmark agree on. Each side is a server process and a client process; `run.ts` tells the client which row to run.
 */

/** One measurement, as the client is asked for it. */
export type Row = "upload" | "download" | "fresh" | "long" | "dial"

/** Messages between `run.ts` and the processes. */
export type ToClient = { readonly row: Row }
export type FromServer = { readonly address: string }
export type FromClient = { readonly ready: true } | { readonly value: number } | { readonly problem: string }

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

/** Reports results to `run.ts`, one row at a time, until it goes away. */
export const serveRows = (rows: { readonly [_ in Row]: () => Promise<number> }): void => {
  process.on("message", ({ row }: ToClient) => {
    rows[row]().then(
      (value) => report({ value }),
      (error) => report({ problem: error instanceof Error ? error.stack ?? error.message : String(error) })
    )
  })
  process.on("disconnect", () => process.exit(0))
  report({ ready: true })
}

export const report = (message: FromServer | FromClient): void => {
  process.send?.(message)
}

/** Seconds that a measurement took. */
export const timed = async (run: () => Promise<unknown>): Promise<number> => {
  const began = performance.now()
  await run()
  return (performance.now() - began) / 1000
}
