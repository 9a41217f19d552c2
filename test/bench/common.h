/*
 * What the clients of the benchmark share: connections, statements that must
 * succeed, uuids, clocks, the CPU time of a backend, and percentiles.
 */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>

#define UUID_TEXT_SIZE	37

/* The application's role: neither owner nor superuser, as in real life. */
#define APP_ROLE		"chat_app"
#define ADMIN_ROLE		"postgres"

/* The workspace of all runs. */
#define WORKSPACE		"00000000-0000-4000-9000-000000000001"

extern void die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
extern long number(const char *text);
extern PGconn *connect_as(const char *role, const char *dbname);
extern void succeed(PGconn *conn, PGresult *result, const char *what);
extern PGresult *query(PGconn *conn, const char *sql);
extern PGresult *query_with(PGconn *conn, const char *sql, int n_params,
							const char *const *params);
extern void take_value(PGresult *result, char *value, size_t size);
extern bool query_says(PGconn *conn, const char *sql, const char *expected);

extern void seed_random(void);
extern double random_fraction(void);
extern void make_uuid(char *text, bool ordered);

extern double wall_us(void);
extern void pause_us(double us);
extern long long backend_cpu_ns(int pid);
extern void print_percentiles(const char *name, double *values, size_t n);

#endif
