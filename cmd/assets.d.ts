/** Files the bundler carries; the import gives a path that can be read. */
declare module "*/build/nats-server" {
  const path: string;
  export default path;
}
