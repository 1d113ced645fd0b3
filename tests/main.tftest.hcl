# What a slip in main.tf would break, a rule a run, on resources that are mocked.
#
#   terraform test -filter=tests/main.tftest.hcl
#
# Build the function's zip first (deno task build): without it each run fails with main.tf's sentence.

mock_provider "aws" { source = "./tests" }

run "a_dot_in_the_name_an_old_runtime_empty_filters_and_their_old_names_are_refused" {
  command = plan
  variables {
    project_name    = "file.metadata"
    lambda_runtime  = "nodejs18.x"
    filter_prefixes = [""]
    filter_suffixes = [""]
    filter_prefix   = "in/"
    filter_suffix   = ".csv"
  }
  expect_failures = [
    var.project_name, var.lambda_runtime, var.filter_prefixes, var.filter_suffixes, var.filter_prefix, var.filter_suffix,
  ]
}

# 54 characters, of which 53 are allowed.
run "a_name_too_long_is_refused" {
  command = plan
  variables { project_name = "file-metadata-with-a-name-too-long-by-a-character" }
  expect_failures = [var.project_name]
}

# 49 characters, of which the role of batch_backfill allows 48.
run "a_name_too_long_for_batch_backfill_is_refused" {
  command = plan
  variables {
    batch_backfill = true
    project_name   = "file-metadata-with-a-name-one-too-long-here1"
  }
  expect_failures = [var.project_name]
}

run "every_name_comes_from_the_stacks_own" {
  assert {
    condition = [
      aws_s3_bucket.uploads[0].bucket, aws_dynamodb_table.files.name, aws_sqs_queue.failures.name,
      aws_cloudwatch_log_group.function.name, aws_iam_role.function.name, aws_lambda_function.metadata.function_name,
    ] == [for name in ["NAME", "NAME", "NAME-failures", "/aws/lambda/NAME", "NAME", "NAME"] : replace(name, "NAME", terraform_data.stack.input.name)]
    error_message = "Two stacks would share a resource."
  }

  assert {
    condition     = can(regex("^file-metadata-dev-[0-9a-f]{10}$", terraform_data.stack.input.name))
    error_message = "The stack's name is not project, environment and ten hexadecimal digits: a dot in it would break TLS to the bucket."
  }

  assert {
    condition     = timecmp(terraform_data.stack.input.created, timeadd(timestamp(), "-1h")) > 0
    error_message = "The state does not keep when the stack was made."
  }
}

run "the_public_neither_reads_nor_writes_the_bucket" {
  assert {
    condition     = alltrue([for name in ["block_public_acls", "block_public_policy", "ignore_public_acls", "restrict_public_buckets"] : aws_s3_bucket_public_access_block.uploads[0][name]])
    error_message = "A setting of the public access block is off."
  }

  assert {
    condition     = one(aws_s3_bucket_ownership_controls.uploads[0].rule).object_ownership == "BucketOwnerEnforced"
    error_message = "ACLs count."
  }

  assert {
    condition = jsonencode(jsondecode(aws_s3_bucket_policy.uploads[0].policy).Statement) == jsonencode([{
      Action    = "s3:*"
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
      Effect    = "Deny"
      Principal = "*"
      Resource  = ["arn:aws:s3:::${local.name}", "arn:aws:s3:::${local.name}/*"]
      Sid       = "DenyPlainHttp"
    }])
    error_message = "The bucket's policy does not deny plain HTTP, or says anything else, which may open the bucket or lock its owner out."
  }

  assert {
    condition     = alltrue([for setting in [aws_s3_bucket_public_access_block.uploads[0], aws_s3_bucket_ownership_controls.uploads[0], aws_s3_bucket_policy.uploads[0]] : setting.bucket == "the-bucket"])
    error_message = "A setting is another bucket's."
  }
}

run "what_is_stored_is_encrypted" {
  assert {
    condition     = one(one(aws_s3_bucket_server_side_encryption_configuration.uploads[0].rule).apply_server_side_encryption_by_default).sse_algorithm == "AES256"
    error_message = "The bucket does not encrypt with SSE-S3."
  }

  assert {
    condition     = aws_sqs_queue.failures.sqs_managed_sse_enabled && aws_sqs_queue.failures.kms_master_key_id == null
    error_message = "The failure queue does not encrypt with SSE-SQS, or uses the key that all queues share."
  }
}

run "old_versions_expire_and_current_objects_never_do" {
  assert {
    condition     = one(aws_s3_bucket_versioning.uploads[0].versioning_configuration).status == "Enabled"
    error_message = "The bucket has no versions."
  }

  assert {
    condition = jsonencode([for rule in aws_s3_bucket_lifecycle_configuration.uploads[0].rule : [rule.status, rule.filter, rule.noncurrent_version_expiration, rule.expiration, rule.transition, rule.abort_incomplete_multipart_upload]]) == jsonencode([[
      "Enabled",
      [{ and = [], object_size_greater_than = 0, object_size_less_than = 0, prefix = "", tag = [] }],
      [{ newer_noncurrent_versions = 0, noncurrent_days = 30 }],
      [{ date = null, days = 0, expired_object_delete_marker = true }],
      [],
      [{ days_after_initiation = 7 }],
    ]])
    error_message = "For all keys: old versions expire after 30 days, then their markers; unfinished uploads after 7 days; nothing else does."
  }
}

run "only_this_bucket_of_this_account_invokes_the_function" {
  variables {
    filter_prefixes = ["dt=2024-01-01/ä b+", join("", [for i in range(300) : "p"])]
    filter_suffixes = [".c&v", ".*"]
  }

  assert {
    condition = [for name in ["action", "function_name", "principal", "source_arn", "source_account"] : aws_lambda_permission.uploads[name]] == [
      "lambda:InvokeFunction", local.name, "s3.amazonaws.com", "arn:aws:s3:::${local.name}", "123456789012",
    ]
    error_message = "Another bucket or account may invoke the function, or this bucket may not."
  }

  assert {
    condition = [for entry in aws_s3_bucket_notification.uploads[0].lambda_function : [entry.events, entry.lambda_function_arn, entry.filter_prefix, entry.filter_suffix, length(entry.id) < 100 ? entry.id : ""]] == [
      for pair in [
        ["dt%3D2024-01-01/%C3%A4+b%2B", ".c%26v", "object-created:dt%3D2024-01-01/%C3%A4+b%2B*.c%26v"],
        ["dt%3D2024-01-01/%C3%A4+b%2B", ".%2A", "object-created:dt%3D2024-01-01/%C3%A4+b%2B*.%2A"],
        [var.filter_prefixes[1], ".c%26v", "object-created:${sha256("${var.filter_prefixes[1]}*.c%26v")}"],
        [var.filter_prefixes[1], ".%2A", "object-created:${sha256("${var.filter_prefixes[1]}*.%2A")}"],
      ] : [toset(["s3:ObjectCreated:*"]), aws_lambda_function.metadata.arn, pair[0], pair[1], pair[2]]
    ]
    error_message = "The bucket does not notify the function of created objects by each pair, or the filters are not form-encoded, but for the slash."
  }
}

run "filters_that_overlap_are_refused" {
  command = plan
  variables {
    filter_prefixes = ["in/", "in/a/"]
    filter_suffixes = [".csv.gz", ".gz"]
  }
  expect_failures = [var.filter_prefixes, var.filter_suffixes]
}

# 11 prefixes with 10 suffixes, of which S3 takes 100 entries.
run "more_pairs_than_s3_takes_are_refused" {
  command = plan
  variables {
    filter_prefixes = [for i in range(11) : "p${i}/"]
    filter_suffixes = [for i in range(10) : ".s${i}"]
  }
  expect_failures = [terraform_data.stack]
}

run "only_lambda_takes_the_role_which_allows_just_this" {
  assert {
    condition     = jsonencode([for allowed in jsondecode(aws_iam_role.function.assume_role_policy).Statement : [allowed.Effect, allowed.Action, allowed.Principal]]) == jsonencode([["Allow", "sts:AssumeRole", { Service = "lambda.amazonaws.com" }]])
    error_message = "Somebody else may take the role."
  }

  assert {
    condition     = aws_lambda_function.metadata.role == aws_iam_role.function.arn
    error_message = "The function has another role."
  }

  assert {
    condition = [for allowed in jsondecode(aws_iam_role_policy.function.policy).Statement : "${allowed.Effect} ${jsonencode(allowed.Action)} on ${allowed.Resource} if ${jsonencode(try(allowed.Condition, true))}"] == [
      "Allow [\"s3:GetObject\",\"s3:GetObjectVersion\"] on arn:aws:s3:::${local.name}/* if {\"StringEquals\":{\"aws:ResourceAccount\":\"123456789012\"}}",
      "Allow \"s3:ListBucket\" on arn:aws:s3:::${local.name} if {\"StringEquals\":{\"aws:ResourceAccount\":\"123456789012\"}}",
      "Allow [\"dynamodb:PutItem\",\"dynamodb:Query\",\"dynamodb:DeleteItem\"] on arn:aws:dynamodb:us-east-1:123456789012:table/the-table if true",
      "Allow [\"logs:CreateLogStream\",\"logs:PutLogEvents\"] on arn:aws:logs:us-east-1:123456789012:log-group:/aws/lambda/the-function:* if true",
      "Allow \"sqs:SendMessage\" on arn:aws:sqs:us-east-1:123456789012:the-queue if true",
    ]
    error_message = "The role's policy is another."
  }

  assert {
    condition     = !can(regex("(?m)^\\s*(inline_policy|managed_policy_arns)\\b", file("${path.module}/main.tf")))
    error_message = "A role has a policy of another kind."
  }
}

run "neither_the_functions_environment_nor_the_provider_holds_a_secret" {
  variables {
    lambda_memory_mb = 129
    warm_up          = false
    record_removals  = true
  }

  assert {
    condition = jsonencode(one(aws_lambda_function.metadata.environment).variables) == jsonencode({
      BUCKET_NAME     = local.name
      TABLE_NAME      = local.name
      STACK_CREATED   = terraform_data.stack.input.created
      WARM_UP         = "off"
      RECORD_REMOVALS = "on"
      NODE_OPTIONS    = "--max-semi-space-size=2 --max-old-space-size=116"
    })
    error_message = "The environment is not two names, a time, two switches, and a heap of 90 % of the memory."
  }

  assert {
    condition     = local.notifications[0].events == ["s3:ObjectCreated:*", "s3:ObjectRemoved:*", "s3:LifecycleExpiration:DeleteMarkerCreated"]
    error_message = "With record_removals the bucket does not tell of removals, or tells of each old version that expires."
  }

  assert {
    condition     = !can(regex("(?m)^\\s*(access_key|secret_key|token|profile|shared_\\w+_files)\\b", file("${path.module}/main.tf")))
    error_message = "The provider block names credentials."
  }
}

run "no_event_is_lost_silently" {
  assert {
    condition = alltrue([
      aws_lambda_function_event_invoke_config.metadata.maximum_retry_attempts == 2,
      aws_lambda_function_event_invoke_config.metadata.maximum_event_age_in_seconds == 6 * 60 * 60,
      one(one(aws_lambda_function_event_invoke_config.metadata.destination_config).on_failure).destination == aws_sqs_queue.failures.arn,
      aws_sqs_queue.failures.message_retention_seconds == 14 * 24 * 60 * 60,
    ])
    error_message = "An event is not tried three times within 6 hours and then kept for 14 days in the failure queue."
  }

  assert {
    condition = jsonencode({ for alarm in values(aws_cloudwatch_metric_alarm.function) : trimprefix(alarm.alarm_name, local.name) => [alarm.namespace, alarm.metric_name, alarm.dimensions] }) == jsonencode({
      "-failures-waiting"     = ["AWS/SQS", "ApproximateNumberOfMessagesVisible", { QueueName = aws_sqs_queue.failures.name }]
      "-errors"               = ["AWS/Lambda", "Errors", { FunctionName = local.name }]
      "-undelivered-failures" = ["AWS/Lambda", "DestinationDeliveryFailures", { FunctionName = local.name }]
    })
    error_message = "There is no alarm each for an event in the failure queue, an error, and an event that could not be sent there."
  }

  assert {
    condition     = alltrue([for alarm in values(aws_cloudwatch_metric_alarm.function) : alarm.comparison_operator == "GreaterThanThreshold" && alarm.threshold == 0 && alarm.treat_missing_data == "notBreaching" && alarm.actions_enabled != false])
    error_message = "An alarm does not begin with the first event, or is muted."
  }
}

# A null may stand for the default of the last four, so these are read.
run "each_opt_in_is_off" {
  assert {
    condition = alltrue([
      !aws_dynamodb_table.files.deletion_protection_enabled,
      !one(aws_dynamodb_table.files.point_in_time_recovery).enabled,
      aws_s3_bucket.uploads[0].force_destroy,
      one(aws_lambda_function.metadata.environment).variables["RECORD_REMOVALS"] == "off",
      aws_cloudwatch_log_group.function.retention_in_days == 14,
      aws_lambda_function.metadata.reserved_concurrent_executions == -1,
      one(aws_lambda_function.metadata.tracing_config).mode == "PassThrough",
      jsonencode([for entry in local.notifications : [entry.id, entry.events, entry.filter_prefix, entry.filter_suffix]]) == jsonencode([["object-created", ["s3:ObjectCreated:*"], "", ""]]),
      !aws_dynamodb_table.files.stream_enabled,
      output.table_stream_arn == null,
      length(aws_iam_role.batch) == 0,
      output.batch_role_arn == null,
    ])
    error_message = "An opt-in of docs/SECURITY.md is on."
  }

  assert {
    condition = alltrue([
      for name in ["kms_key_arn", "access_log_bucket", "alarm_topic_arn", "permissions_boundary_arn"] :
      can(regex("(?m)^variable \"${name}\" {\n[^}]*^  default +=\\s+null$", file("${path.module}/variables.tf")))
    ])
    error_message = "A key, bucket, topic or policy that must exist is named by default."
  }
}

run "a_batch_job_may_list_the_bucket_and_invoke_the_function" {
  variables { batch_backfill = true }

  assert {
    condition = jsonencode(jsondecode(aws_iam_role.batch[0].assume_role_policy).Statement) == jsonencode([{
      Action    = "sts:AssumeRole"
      Condition = { StringEqualsIfExists = { "aws:SourceAccount" = "123456789012" } }
      Effect    = "Allow"
      Principal = { Service = "batchoperations.s3.amazonaws.com" }
    }])
    error_message = "Somebody else than S3 Batch Operations may take the role, or another account's."
  }

  assert {
    condition = jsonencode(jsondecode(aws_iam_role_policy.batch[0].policy).Statement) == jsonencode([
      { Sid = "ListUploads", Effect = "Allow", Action = "s3:PutInventoryConfiguration", Resource = "arn:aws:s3:::${local.name}" },
      { Sid = "InvokeFunction", Effect = "Allow", Action = "lambda:InvokeFunction", Resource = "arn:aws:lambda:us-east-1:123456789012:function:the-function" },
    ])
    error_message = "The job's role may do something else: it reads and writes no upload."
  }

  assert {
    condition     = aws_iam_role.batch[0].name == "${local.name}-batch"
    error_message = "The name of the job's role does not come from the stack's own."
  }
}

run "another_environment_is_refused" {
  command = plan
  variables { environment = "prod" }
  expect_failures = [terraform_data.stack]
}

# The stack has one of its own.
run "an_existing_bucket_is_refused" {
  command = plan
  variables { existing_bucket = "photos" }
  expect_failures = [terraform_data.stack]
}

run "another_region_is_refused" {
  command = plan
  variables { aws_region = "eu-central-1" }
  expect_failures = [terraform_data.stack]
}

run "a_bucket_made_again_takes_no_other_resource_with_it" {
  plan_options { replace = [aws_s3_bucket.uploads[0]] }

  assert {
    condition     = alltrue([for name in [aws_s3_bucket.uploads[0].bucket, aws_dynamodb_table.files.name, trimsuffix(aws_sqs_queue.failures.name, "-failures"), trimprefix(aws_cloudwatch_log_group.function.name, "/aws/lambda/"), aws_iam_role.function.name, aws_lambda_function.metadata.function_name] : name == run.every_name_comes_from_the_stacks_own.lambda_function_name])
    error_message = "A bucket that was deleted by hand changes another resource's name."
  }
}

# The new role has another id, and a resource gets one of these if it is made again.
run "a_role_made_again_takes_the_function_and_its_settings_with_it" {
  plan_options { replace = [aws_iam_role.function] }

  override_resource {
    target = aws_lambda_function.metadata
    values = { id = "again", arn = "arn:aws:lambda:us-east-1:123456789012:function:the-function" }
  }

  override_resource {
    target = aws_lambda_permission.uploads
    values = { id = "again" }
  }

  override_resource {
    target = aws_lambda_function_event_invoke_config.metadata
    values = { id = "again" }
  }

  assert {
    condition     = alltrue([for made in [aws_lambda_function.metadata, aws_lambda_permission.uploads, aws_lambda_function_event_invoke_config.metadata] : made.id == "again"])
    error_message = "The function keeps a grant for a role that was deleted, or loses its permission or its settings."
  }
}

# Even then nothing that holds data is replaced, and other variables change no name. Two clones with the
# same variables have other names, too.
run "a_lost_identity_replaces_no_data" {
  plan_options { replace = [terraform_data.stack] }
  variables { filter_prefixes = ["incoming/"] }

  assert {
    condition     = terraform_data.stack.input.name != aws_s3_bucket.uploads[0].bucket
    error_message = "Two stacks with the same variables have the same names."
  }

  assert {
    condition = [aws_s3_bucket.uploads[0].bucket, aws_dynamodb_table.files.name, aws_sqs_queue.failures.name] == [
      for suffix in ["", "", "-failures"] : "${run.every_name_comes_from_the_stacks_own.lambda_function_name}${suffix}"
    ]
    error_message = "The bucket, the table or the failure queue is replaced."
  }
}
