/** The report of a run while it goes on: a page on this machine alone, which asks for newer figures. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { FishyError, UsageError } from "../errors.js";
import { RunDirectory } from "../training/run-directory.js";
import { collectRuns, type ReportData } from "./collect.js";
import { renderPage } from "./page.js";
import { renderReport } from "./report.js";
import { readSections, type SectionOf } from "./sections.js";

/** Which run, and where its page is. */
export interface DashboardOptions {
  /** The run's folder, which need not be there yet. */
  readonly directory: string;
  /** Default any free one. */
  readonly port?: number;
}

/** What the page gets: the report's figures, how long the run is going to be, and whether there will be more. */
interface DashboardData extends ReportData {
  readonly totalSteps: number | undefined;
  readonly isOver: boolean;
}

/** Only this machine reaches it. */
const ADDRESS = "127.0.0.1";
/** The figures are read again at most this often (milliseconds), and less often where reading takes long. */
const READ_EVERY = 500;
const READING_SHARE = 0.1;
/** How long a page that is open may take to fetch the last figures (milliseconds). */
const LAST_WAIT = 3000;

const SCRIPTS = { scripts: ["dashboard.js"], connect: "'self'" };

/** A server for one run; `close` ends it. */
export class Dashboard {
  /** Steps of the whole run, once they are known. */
  totalSteps: number | undefined;
  private isOver = false;
  private sections: SectionOf | undefined;
  private text: string | undefined;
  private version = 0;
  private readAt = Number.NEGATIVE_INFINITY;
  private readFor = 0;
  /** When a page last asked, and for which version. */
  private asked = { at: Number.NEGATIVE_INFINITY, version: 0 };

  private constructor(
    private readonly directory: string,
    private readonly server: Server,
  ) {}

  /**
   * Starts a server.
   * @throws UsageError for a port that is none or is in use.
   */
  static async start({ directory, port = 0 }: DashboardOptions): Promise<Dashboard> {
    if (!Number.isInteger(port) || port < 0 || port > 65535) {
      throw new UsageError(`The dashboard's port must be a whole number up to 65535; got ${port}.`);
    }
    const server = createServer();
    const dashboard = new Dashboard(directory, server);
    server.on("request", (request, response) => {
      void dashboard.answer(request, response).catch((error: Error) => {
        response.writeHead(500, { "Content-Type": "text/plain" }).end(error.message);
      });
    });
    await new Promise<void>((resolve, reject) => {
      server.once("error", (error: NodeJS.ErrnoException) => {
        const why = error.code === "EADDRINUSE" ? "is in use: give another one" : `cannot be used: ${error.message}`;
        reject(new UsageError(`The dashboard's port ${port} ${why}, or none for any that is free.`));
      });
      server.listen(port, ADDRESS, resolve);
    });
    // Does not keep the process.
    server.unref();
    return dashboard;
  }

  get url(): string {
    return `http://${ADDRESS}:${(this.server.address() as AddressInfo).port}/`;
  }

  /** Ends the server, after an open page has fetched the last figures. What a run came to is not lost to a failure here. */
  async close(): Promise<void> {
    this.isOver = true;
    try {
      this.read();
    } catch {
      // A page that is open keeps the figures that it has.
    }
    const end = Date.now() + LAST_WAIT;
    const isWatched = Date.now() - this.asked.at < LAST_WAIT;
    while (isWatched && this.asked.version < this.version && Date.now() < end) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    this.server.close();
    this.server.closeAllConnections();
  }

  private async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    // A page of another site can name this machine by a host of its own (DNS rebinding).
    const { host } = new URL(this.url);
    if (request.headers.host !== host && request.headers.host !== host.replace(ADDRESS, "localhost")) {
      response.writeHead(403).end();
      return;
    }
    if (request.method !== "GET") {
      response.writeHead(405, { Allow: "GET" }).end();
      return;
    }
    const headers = { "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff" };
    switch (request.url) {
      case "/": {
        await this.refresh();
        const page = this.page();
        response.writeHead(200, { ...headers, "Content-Type": "text/html; charset=utf-8" }).end(page);
        return;
      }
      case "/data": {
        await this.refresh();
        this.asked = { at: Date.now(), version: this.version };
        const tag = `"${this.version}"`;
        if (this.text === undefined) response.writeHead(204, headers).end();
        else if (request.headers["if-none-match"] === tag) response.writeHead(304, headers).end();
        else response.writeHead(200, { ...headers, "Content-Type": "application/json", ETag: tag }).end(this.text);
        return;
      }
      default:
        response.writeHead(404).end();
    }
  }

  private page(): string {
    if (this.text !== undefined) return renderReport(JSON.parse(this.text) as DashboardData, SCRIPTS);
    return renderPage({
      title: "Training",
      body: "<h1>Training runs</h1>\n<p>No step is done yet.</p>",
      ...SCRIPTS,
      scripts: ["common.js", ...SCRIPTS.scripts],
    });
  }

  /** Reads the run again when that is due. */
  private async refresh(): Promise<void> {
    const wait = Math.max(READ_EVERY, this.readFor / READING_SHARE);
    if (performance.now() - this.readAt < wait) return;
    if (!this.sections && new RunDirectory(this.directory).exists) this.sections = await readSections(this.directory);
    this.read();
  }

  private read(): void {
    const start = performance.now();
    this.readAt = start;
    try {
      const data = collectRuns([{ directory: this.directory, sections: this.sections }]);
      const shown: DashboardData = { ...data, totalSteps: this.totalSteps, isOver: this.isOver };
      const text = JSON.stringify(shown);
      if (text !== this.text) this.version++;
      this.text = text;
    } catch (error) {
      // No folder or no step yet.
      if (!(error instanceof FishyError)) throw error;
    }
    this.readFor = performance.now() - start;
  }
}
