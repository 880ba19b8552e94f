/**
 * Must be evaluated before @peculiar/x509. The bundler runs a CommonJS package after the modules
 * imported beside it, so the order is only kept through a module of our own.
 */
import "reflect-metadata";
