# A stack of a bucket that exists, on resources that are mocked.
#
#   terraform test -filter=tests/existing.tftest.hcl

mock_provider "aws" { source = "./tests" }

variables {
  existing_bucket             = "photos"
  existing_bucket_kms_key_arn = "arn:aws:kms:us-east-1:123456789012:key/1"
  filter_prefixes             = ["in box/"]
  filter_suffixes             = [".txt", ".csv"]
  access_log_bucket           = "logs"
  batch_backfill              = true
  record_removals             = true
}

run "neither_the_bucket_nor_anything_of_it_is_made" {
  assert {
    condition = 0 == length(concat(
      aws_s3_bucket.uploads, aws_s3_bucket_public_access_block.uploads, aws_s3_bucket_ownership_controls.uploads,
      aws_s3_bucket_server_side_encryption_configuration.uploads, aws_s3_bucket_versioning.uploads,
      aws_s3_bucket_lifecycle_configuration.uploads, aws_s3_bucket_policy.uploads, aws_s3_bucket_logging.uploads,
      aws_s3_bucket_notification.uploads,
    ))
    error_message = "Terraform manages the bucket of somebody else, or a setting of it, or takes away its other triggers."
  }

  assert {
    condition = [
      output.s3_bucket_name, output.existing_bucket, aws_lambda_permission.uploads.source_arn, one(aws_lambda_function.metadata.environment).variables.BUCKET_NAME,
      jsondecode(aws_iam_role_policy.function.policy).Statement[0].Resource, jsondecode(aws_iam_role_policy.function.policy).Statement[1].Resource,
      jsondecode(aws_iam_role_policy.batch[0].policy).Statement[0].Resource,
    ] == ["photos", "photos", "arn:aws:s3:::photos", "photos", "arn:aws:s3:::photos/*", "arn:aws:s3:::photos", "arn:aws:s3:::photos"]
    error_message = "The function, its permission or a role is about another bucket."
  }

  # An object of a bucket that has long been there is there, or is not.
  assert {
    condition     = one(aws_lambda_function.metadata.environment).variables.STACK_CREATED == ""
    error_message = "A 404 in an old bucket is tried again in vain."
  }

  assert {
    condition = jsonencode(slice(jsondecode(aws_iam_role_policy.function.policy).Statement, 5, length(jsondecode(aws_iam_role_policy.function.policy).Statement))) == jsonencode([{
      Action    = "kms:Decrypt"
      Condition = { StringEquals = { "kms:ViaService" = "s3.us-east-1.amazonaws.com" } }
      Effect    = "Allow"
      Resource  = var.existing_bucket_kms_key_arn
      Sid       = "DecryptUploads"
    }])
    error_message = "Not just decrypting with the bucket's key, through S3."
  }
}

run "its_owner_is_told_the_entries_to_add" {
  assert {
    condition = jsondecode(output.notification_json) == [for i, suffix in var.filter_suffixes : {
      Id                = "${local.name}-${i}"
      LambdaFunctionArn = aws_lambda_function.metadata.arn
      Events            = local.notifications[0].events
      Filter            = { Key = { FilterRules = [{ Name = "Prefix", Value = "in+box/" }, { Name = "Suffix", Value = suffix }] } }
    }]
    error_message = "The entries are not those of the function, of each pair of filters, under names that no other stack has."
  }

  assert {
    condition     = output.notification_hcl == join("", [for i, suffix in var.filter_suffixes : "lambda_function {\n  id                  = \"${local.name}-${i}\"\n  lambda_function_arn = \"${aws_lambda_function.metadata.arn}\"\n  events              = ${jsonencode(local.notifications[0].events)}\n  filter_prefix       = \"in+box/\"\n  filter_suffix       = \"${suffix}\"\n}\n"])
    error_message = "What Terraform is to add is something else than the aws CLI adds."
  }

  assert {
    condition     = local.notifications[0].events == ["s3:ObjectCreated:*", "s3:ObjectRemoved:*", "s3:LifecycleExpiration:DeleteMarkerCreated", "s3:LifecycleExpiration:Delete"]
    error_message = "Without versions what the lifecycle deletes is not recorded."
  }

  # The aws CLI itself was seen to keep the other entries, and to add these once.
  assert {
    condition = [output.notification_add, output.notification_remove] == [for entries in [output.notification_json, "[]"] :
      "aws s3api get-bucket-notification-configuration --region us-east-1 --bucket photos --output json --query 'merge(@, {LambdaFunctionConfigurations: [LambdaFunctionConfigurations[?LambdaFunctionArn != `\"${aws_lambda_function.metadata.arn}\"`] || `[]`, `${entries}`][]})' > notification.json && aws s3api put-bucket-notification-configuration --region us-east-1 --bucket photos --notification-configuration file://notification.json"
    ]
    error_message = "A command changes something else than the function's own entries."
  }
}

run "a_bucket_of_its_own_is_refused" {
  command = plan
  variables {
    existing_bucket             = null
    existing_bucket_kms_key_arn = null
  }
  expect_failures = [terraform_data.stack]
}
